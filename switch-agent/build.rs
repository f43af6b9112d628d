//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Relative relocations in a packed table: those of a position-independent program are a third of a megabyte
    // else, all of which the loader reads. glibc knows the table since 2.36, which Debian 12 has.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
