# shellcheck shell=bash
# Debian's cloud kernel, and initial RAM discs of busybox for it. Sourced after lib.sh.

UEFI_PACKAGE_DIR=$LAB_OUT/packages
# In the order in which they need each other; what a kernel has built in is passed over.
UEFI_MODULES=(
  virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net
)

# unpack_kernel DIR: DIR/boot/vmlinuz-* and DIR/lib/modules. The package is only taken apart: installed, it would
# become a kernel that this host boots.
unpack_kernel() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p' | head -1)
  [[ -n $package ]] || die "apt knows no linux-image-cloud-amd64"
  mkdir -p "$UEFI_PACKAGE_DIR"
  if ! compgen -G "$UEFI_PACKAGE_DIR/${package}_*.deb" >/dev/null; then
    (cd "$UEFI_PACKAGE_DIR" && apt-get download -q "$package") >"$UEFI_PACKAGE_DIR/log" 2>&1 ||
      die "cannot download $package (log: $UEFI_PACKAGE_DIR/log)"
  fi
  dpkg-deb -x "$UEFI_PACKAGE_DIR/$package"_*.deb "$1"
}

# make_initrd FILE KERNEL-DIR INIT [FILE-TO-INCLUDE]...: INIT is its only program beside busybox, which has all
# its names in /bin; other files go to /. /modules/order lists the modules.
make_initrd() {
  local file=$1 kernel=$2 init=$3 tree module
  tree=$(mktemp -d "$LAB_OUT/initrd.XXXXXX")
  mkdir -p "$tree"/{bin,modules,proc,sys,dev,tmp}
  cp /bin/busybox "$tree/bin/busybox"
  for module in "${UEFI_MODULES[@]}"; do
    find "$kernel/lib/modules" -name "$module.ko" -exec cp {} "$tree/modules/" \;
    [[ ! -e $tree/modules/$module.ko ]] || echo "$module" >>"$tree/modules/order"
  done
  cp "$init" "$tree/init"
  chmod +x "$tree/init"
  [[ $# -le 3 ]] || cp "${@:4}" "$tree/"
  (cd "$tree" && find . | cpio --quiet -o -H newc) | gzip -1 >"$file"
  rm -rf "$tree"
}

# make_esp FILE PROGRAM [FILE-TO-INCLUDE]...: an EFI system partition whose default program (UEFI 2.10, 3.5.1.1)
# is PROGRAM; other files go to its root.
make_esp() {
  local file=$1 program=$2 kib
  shift
  kib=$(du -ck "$@" | tail -1 | cut -f1)
  rm -f "$file"
  mformat -C -i "$file" -T $(((kib + 1024) * 2)) -h 64 -s 32 ::
  mmd -i "$file" ::/EFI ::/EFI/BOOT
  mcopy -i "$file" "$program" ::/EFI/BOOT/BOOTX64.EFI
  shift
  (($# == 0)) || mcopy -i "$file" "$@" ::/
}

# make_system DIR KERNEL-DIR INITRD TEXT: what starts Linux with that initrd, by GRUB: DIR/grub.efi, linux, initrd.
make_system() {
  local dir=$1
  mkdir -p "$dir"
  cp "$2"/boot/vmlinuz-* "$dir/linux"
  cp "$3" "$dir/initrd"
  printf 'echo "%s"\nlinux /linux console=ttyS0,115200n8 quiet\ninitrd /initrd\nboot\n' "$4" >"$dir/../grub.cfg"
  # The configuration is inside: GRUB looks for its files on what it was loaded from.
  grub-mkimage --format x86_64-efi --prefix / --config "$dir/../grub.cfg" --output "$dir/grub.efi" \
    echo linux boot fat part_gpt iso9660
}

# make_iso FILE PROGRAM [FILE-TO-INCLUDE]...: a disc from which UEFI boots PROGRAM (El Torito, platform EFI).
make_iso() {
  local file=$1 tree
  tree=$(mktemp -d "$LAB_OUT/iso.XXXXXX")
  make_esp "$tree/efi.img" "$2"
  [[ $# -le 2 ]] || cp "${@:3}" "$tree/"
  xorriso -as mkisofs -quiet -V BOOT -eltorito-platform efi -eltorito-boot efi.img -no-emul-boot -o "$file" "$tree" \
    2>"$tree.log" || die "cannot make $file: $(<"$tree.log")"
  rm -rf "$tree" "$tree.log"
}

# make_disk FILE ESP: the image of a disk with a GUID partition table and that partition.
make_disk() {
  local bytes
  bytes=$(stat -c %s "$2")
  rm -f "$1"
  truncate -s $((bytes + (2 << 20))) "$1"
  printf 'label: gpt\nstart=2048, size=%d, type=uefi\n' $((bytes / 512)) | sfdisk -q "$1"
  dd if="$2" of="$1" bs=1M seek=1 conv=notrunc status=none
}
