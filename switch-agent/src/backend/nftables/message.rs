//! Messages of nf_tables (linux/netfilter/nf_tables.h, nfnetlink.h): those few that the drop rule needs.
//!
//! Numbers in attributes are big-endian; lengths and types of headers are the host's.

use std::collections::BTreeSet;

use crate::backend::netlink;

/// Message types are `NFNL_SUBSYS_NFTABLES << 8` and one of these.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
/// Rules are appended rather than put in front.
const NLM_F_APPEND: u16 = 0x800;

const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`: family, version, resource.
const FAMILY_HEADER_LEN: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;

/// IFNAMSIZ: names are compared with their padding.
const NAME_LEN: usize = 16;
/// How `nft` shows a set of interface names (`TYPE_IFNAME`).
const KEY_TYPE_IFNAME: u32 = 41;
/// Elements of one message: its attribute's length has 16 bits.
const ELEMENTS_MAX: usize = 1024;

const REGISTER_VERDICT: u32 = 0;
const REGISTER_1: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;
const PAYLOAD_TRANSPORT: u32 = 2;
const COMPARE_EQUAL: u32 = 0;
const VERDICT_DROP: u32 = 0;
const HOOK_PREROUTING: u32 = 0;
/// NF_IP6_PRI_RAW.
const PRIORITY_RAW: i32 = -300;
const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;

/// For `nft` alone, so that it shows the names: the key's byte order (libnftnl) is the host's.
const SET_USERDATA: [u8; 2] = [0, 4];
const BYTE_ORDER_HOST: u32 = 1;
/// Type of a comment in a rule's user data, as `nft` keeps it (libnftnl).
const USERDATA_COMMENT: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Unspecified = 0,
    Ipv6 = 10,
}

/// Attributes, one after the other.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn raw(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.raw(kind, &value)
    }

    fn number(self, kind: u16, value: u32) -> Self {
        self.raw(kind, &value.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.raw(kind | NLA_F_NESTED, &inner.0)
    }
}

fn attributes() -> Attributes {
    Attributes::default()
}

/// NFTA_LIST_ELEM with an expression: its name and its own attributes.
fn expression(list: Attributes, name: &str, data: Attributes) -> Attributes {
    list.nested(1, attributes().text(1, name).nested(2, data))
}

/// NFTA_DATA_VALUE.
fn data(value: &[u8]) -> Attributes {
    attributes().raw(1, value)
}

fn append(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: Family,
    resource: u16,
    body: &[u8],
) {
    let length = HEADER_LEN + FAMILY_HEADER_LEN + body.len();
    buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&[family as u8, 0]);
    buffer.extend_from_slice(&resource.to_be_bytes());
    buffer.extend_from_slice(body);
}

/// A transaction under construction.
#[derive(Debug)]
pub(super) struct Batch {
    buffer: Vec<u8>,
    family: Family,
    sequence: u32,
}

impl Batch {
    pub(super) fn new(family: Family) -> Batch {
        let mut batch = Batch { buffer: vec![], family, sequence: 1 };
        append(&mut batch.buffer, BATCH_BEGIN, NLM_F_REQUEST, 1, Family::Unspecified, SUBSYSTEM, &[]);
        batch
    }

    fn push(&mut self, kind: u16, flags: u16, body: &Attributes) {
        self.sequence += 1;
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        append(&mut self.buffer, SUBSYSTEM << 8 | kind, flags, self.sequence, self.family, 0, &body.0);
    }

    pub(super) fn new_table(&mut self, table: &str) {
        self.push(NEW_TABLE, NLM_F_CREATE, &attributes().text(1, table));
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.push(DELETE_TABLE, 0, &attributes().text(1, table));
    }

    pub(super) fn new_prerouting_chain(&mut self, table: &str, chain: &str) {
        let priority = u32::from_be_bytes(PRIORITY_RAW.to_be_bytes());
        let hook = attributes().number(1, HOOK_PREROUTING).number(2, priority);
        let body = attributes().text(1, table).text(3, chain).nested(4, hook).text(7, "filter");
        self.push(NEW_CHAIN, NLM_F_CREATE, &body);
    }

    /// A set of interface names.
    pub(super) fn new_name_set(&mut self, table: &str, set: &str) {
        let length = u32::try_from(NAME_LEN).unwrap_or(16);
        let userdata = [&SET_USERDATA[..], &BYTE_ORDER_HOST.to_ne_bytes()].concat();
        let body = attributes()
            .text(1, table)
            .text(2, set)
            .number(3, 0)
            .number(4, KEY_TYPE_IFNAME)
            .number(5, length)
            .number(10, 1)
            .raw(13, &userdata);
        self.push(NEW_SET, NLM_F_CREATE, &body);
    }

    pub(super) fn new_names(&mut self, table: &str, set: &str, names: &BTreeSet<String>) {
        let names: Vec<&String> = names.iter().collect();
        for part in names.chunks(ELEMENTS_MAX) {
            let elements = part.iter().fold(attributes(), |elements, name| {
                let mut key = [0; NAME_LEN];
                // A longer name is no interface's.
                key.iter_mut().zip(name.as_bytes()).for_each(|(octet, value)| *octet = *value);
                elements.nested(1, attributes().nested(1, data(&key)))
            });
            let body = attributes().text(1, table).text(2, set).nested(3, elements);
            self.push(NEW_ELEMENTS, NLM_F_CREATE, &body);
        }
    }

    /// `iifname @set icmpv6 type nd-router-solicit counter drop comment "..."`
    pub(super) fn new_drop_rule(&mut self, table: &str, chain: &str, set: &str, comment: &str) {
        let meta = |key| attributes().number(1, REGISTER_1).number(2, key);
        let equal =
            |value: u8| attributes().number(1, REGISTER_1).number(2, COMPARE_EQUAL).nested(3, data(&[value]));
        let first_byte =
            attributes().number(1, REGISTER_1).number(2, PAYLOAD_TRANSPORT).number(3, 0).number(4, 1);
        let verdict = attributes().nested(2, attributes().number(1, VERDICT_DROP));
        let mut list = attributes();
        list = expression(list, "meta", meta(META_IIFNAME));
        list = expression(list, "lookup", attributes().text(1, set).number(2, REGISTER_1));
        list = expression(list, "meta", meta(META_L4PROTO));
        list = expression(list, "cmp", equal(ICMPV6));
        list = expression(list, "payload", first_byte);
        list = expression(list, "cmp", equal(ROUTER_SOLICITATION));
        list = expression(list, "counter", attributes());
        list = expression(list, "immediate", attributes().number(1, REGISTER_VERDICT).nested(2, verdict));
        let mut userdata = vec![USERDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
        userdata.extend_from_slice(comment.as_bytes());
        userdata.push(0);
        let body = attributes().text(1, table).text(2, chain).nested(4, list).raw(7, &userdata);
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &body);
    }

    /// The datagram, and the sequence number of the last message that is acknowledged.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        let end = self.sequence + 1;
        append(&mut self.buffer, BATCH_END, NLM_F_REQUEST, end, Family::Unspecified, SUBSYSTEM, &[]);
        (self.buffer, self.sequence)
    }
}

/// Dumps.
pub(super) mod request {
    use super::{Family, GET_ELEMENTS, GET_RULE, NLM_F_DUMP, NLM_F_REQUEST, SUBSYSTEM, append, attributes};

    /// Sequence number of every dump; each has a socket of its own.
    pub(in super::super) const SEQUENCE: u32 = 1;

    fn dump(kind: u16, table: &str, object: &str) -> Vec<u8> {
        let body = attributes().text(1, table).text(2, object);
        let mut message = vec![];
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        append(&mut message, SUBSYSTEM << 8 | kind, flags, SEQUENCE, Family::Ipv6, 0, &body.0);
        message
    }

    pub(in super::super) fn rules(table: &str, chain: &str) -> Vec<u8> {
        dump(GET_RULE, table, chain)
    }

    pub(in super::super) fn elements(table: &str, set: &str) -> Vec<u8> {
        dump(GET_ELEMENTS, table, set)
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    netlink::attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The comment of a rule, from the payload of the message that shows it.
pub(super) fn comment(payload: &[u8]) -> Option<String> {
    let mut userdata = find(payload.get(FAMILY_HEADER_LEN..)?, 7)?;
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            return Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned());
        }
        userdata = rest.get(usize::from(*length)..)?;
    }
    None
}

/// The names in a set of interface names, from the payload of a message that shows some of its elements.
pub(super) fn element_names(payload: &[u8]) -> Vec<String> {
    let list = payload.get(FAMILY_HEADER_LEN..).and_then(|body| find(body, 3)).unwrap_or_default();
    let key = |element| find(find(element, 1)?, 1);
    netlink::attributes(list)
        .filter_map(|(_, element)| {
            let name = key(element)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Some(String::from_utf8_lossy(&name[..end]).into_owned())
        })
        .collect()
}
