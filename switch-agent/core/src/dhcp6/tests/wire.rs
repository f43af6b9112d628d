//! Properties over messages of another codec, and over bytes of nobody.

use dhcproto::v6::{DhcpOption, IAAddr, IANA, Message as Encoded, MessageType as Kind, ORO, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn kind() -> impl Strategy<Value = Kind> {
    select(&[Kind::Solicit, Kind::Request, Kind::Confirm, Kind::Renew, Kind::Rebind, Kind::Release][..])
}

prop_compose! {
    fn encoded()(
        kind in kind(),
        xid in any::<[u8; 3]>(),
        duid in vec(any::<u8>(), 3..=130),
        addresses in vec(any::<u128>(), 0..4),
        iaid in any::<u32>(),
        asked in vec(select(&[16u16, 23, 24, 32, 56, 59, 60, 82, 83][..]), 0..9),
        rapid in any::<bool>(),
    ) -> (Encoded, Vec<Ipv6Addr>) {
        let addresses: Vec<Ipv6Addr> = addresses.into_iter().map(Ipv6Addr::from).collect();
        let mut message = Encoded::new_with_id(kind, xid);
        let options = message.opts_mut();
        options.insert(DhcpOption::ClientId(duid));
        if matches!(kind, Kind::Request | Kind::Renew | Kind::Release) {
            options.insert(DhcpOption::ServerId(SERVER_DUID.to_vec()));
        }
        if rapid {
            options.insert(DhcpOption::RapidCommit);
        }
        options.insert(DhcpOption::ORO(ORO { opts: asked.into_iter().map(OptionCode::from).collect() }));
        let opts = addresses
            .iter()
            .map(|addr| DhcpOption::IAAddr(IAAddr {
                addr: *addr,
                preferred_life: 1,
                valid_life: 2,
                opts: Default::default(),
            }))
            .collect();
        options.insert(DhcpOption::IANA(IANA { id: iaid, t1: 0, t2: 0, opts }));
        (message, addresses)
    }
}

proptest! {
    /// What another codec writes is read as it was meant, and the other codec reads the answer.
    #[test]
    fn another_codec_is_understood((message, addresses) in encoded()) {
        let bytes = message.to_vec().unwrap();
        let read = Message::parse(&bytes).unwrap();
        prop_assert_eq!(read.transaction_id, message.xid());
        prop_assert_eq!(read.rapid_commit, message.opts().get(OptionCode::RapidCommit).is_some());
        let found: Vec<Ipv6Addr> = read.ias().flat_map(Ia::addresses).collect();
        prop_assert_eq!(&found, &addresses);
        let Ok(answer) = respond(&config(options()), facts(), &datagram(&bytes), &read) else {
            prop_assert!(message.msg_type() == Kind::Confirm && addresses.is_empty());
            return Ok(());
        };
        let decoded = Encoded::decode(&mut Decoder::new(&answer.message)).unwrap();
        prop_assert_eq!(decoded.xid(), message.xid());
        prop_assert_eq!(decoded.opts().get(OptionCode::ClientId), message.opts().get(OptionCode::ClientId));
        prop_assert_eq!(decoded.to_vec().unwrap().len(), answer.message.len());
        prop_assert_eq!(answer.addresses.destination, MACHINE.eui64_link_local());
    }

    /// No bytes make it panic, and no answer is longer than it may be.
    #[test]
    fn any_bytes_are_survived(mut bytes in vec(any::<u8>(), 0..600), kind in 0u8..14) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(message) = Message::parse(&bytes)
            && let Ok(answer) = respond(&config(options()), facts(), &datagram(&bytes), &message)
        {
            prop_assert!(answer.message.len() <= ANSWER_LEN_MAX);
        }
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[0x86, 0xdd]);
        frame.extend_from_slice(&bytes);
        parse_frame(&frame, crate::ndp::ChecksumOffload::NotReady).ok();
    }

    /// Neither does a good message with a few bytes changed, which gets further.
    #[test]
    fn changed_bytes_are_survived(
        (message, _) in encoded(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = message.to_vec().unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(message) = Message::parse(&bytes) {
            respond(&config(options()), facts(), &datagram(&bytes), &message).ok();
        }
    }
}
