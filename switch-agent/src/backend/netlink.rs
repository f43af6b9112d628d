//! What all netlink families share.

/// Flags of an attribute's type that are not part of it (`NLA_TYPE_MASK`, linux/netlink.h).
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Types and values of attributes one after the other; ends early where a length is wrong.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
