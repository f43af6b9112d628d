# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who source this
# What the scripts of this lab agree on. Sourced, never run.

. "$(dirname "${BASH_SOURCE[0]}")/../local/lib/env.sh"

UEFI_PACKAGES=(qemu-system-x86 ovmf grub-common grub-efi-amd64-bin ipxe busybox-static cpio)
# For discs and disks, and the client of Redfish that Ironic uses.
UEFI_DISC_PACKAGES=(xorriso mtools fdisk python3 python3-sushy)
OVMF_CODE=/usr/share/OVMF/OVMF_CODE_4M.fd
OVMF_VARS=/usr/share/OVMF/OVMF_VARS_4M.fd

# On the host's file system: what both the lab kernel and the host see.
UEFI_OUT=$LAB_OUT/uefi
UEFI_MAC=52:54:00:00:00:09
# Where its cable is.
UEFI_PORT=leaf1:Ethernet8
# From power-on to power-off; a boot takes about 15 s.
UEFI_BOOT_SECONDS_MAX=90

# Of the machine with a disk (labs/uefi/install), where everything of it is.
UEFI_UUID=4f2b1c4e-0000-4000-8000-000000000009
UEFI_DISK_MIB=64
UEFI_MACHINE=$UEFI_OUT/machine

export UEFI_OUT UEFI_MAC UEFI_PORT UEFI_UUID UEFI_DISK_MIB UEFI_MACHINE

# What this host lacks to boot firmware, in words; nothing when all is there.
uefi_missing() {
  local command file
  for command in qemu-system-x86_64 grub-mkimage; do
    command -v "$command" >/dev/null || { echo "no $command" && return; }
  done
  for file in "$OVMF_CODE" "$OVMF_VARS" /usr/lib/grub/x86_64-efi/halt.mod /usr/lib/ipxe/snponly.efi \
    /usr/lib/ipxe/ipxe.lkrn /bin/busybox; do
    [[ -e $file ]] || { echo "no $file" && return; }
  done
}

# The same, for discs.
uefi_disc_missing() {
  local command
  uefi_missing
  for command in xorriso mformat mcopy sfdisk cpio; do
    command -v "$command" >/dev/null || { echo "no $command" && return; }
  done
  /usr/bin/python3 -c 'import sushy' 2>/dev/null || echo "no python3-sushy"
}
