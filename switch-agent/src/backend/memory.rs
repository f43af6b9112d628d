//! glibc's allocator, told that it lives on a switch; and memory that is nobody else's business.
//!
//! By default every thread gets an arena of its own and freed memory stays in it. A pass reads a few hundred
//! kilobytes of rows and FRR's answers, then drops them; on a leaf they belong to the ASIC's daemons again.

/// Keeps the process's memory, and the keys and tokens in it, out of core files and from other processes of
/// its user. SONiC writes a core of everything that crashes.
///
/// # Errors
/// The kernel refused.
pub fn keep_private() -> std::io::Result<()> {
    nix::sys::prctl::set_dumpable(false).map_err(std::io::Error::from)
}

/// Bytes from which an allocation is mapped by itself, and returned when freed.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 64 << 10;
/// Free bytes at the top of the heap from which they are returned.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 128 << 10;

/// Called once, before threads are started. A refusal changes nothing but the footprint.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "mallopt has no safe wrapper; it takes two integers and is called before threads"
)]
pub fn keep_small() {
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD),
    ];
    for (parameter, value) in settings {
        // SAFETY: no pointers are involved, and no other thread exists yet.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives freed memory in the middle of the heap back to the kernel. Takes about a millisecond.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim has no safe wrapper; it takes an integer")]
pub fn release() {
    // SAFETY: no pointers are involved; the allocator locks itself.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have their own ways.
#[cfg(not(target_env = "gnu"))]
pub fn keep_small() {}

/// Other C libraries have their own ways.
#[cfg(not(target_env = "gnu"))]
pub fn release() {}
