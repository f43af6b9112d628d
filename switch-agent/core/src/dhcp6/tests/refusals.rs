//! What RFC 8415 section 16 tells a server to discard, and what a frame may do to it.

use std::time::Duration;

use super::*;
use crate::ndp::{ChecksumOffload, FrameAddresses};

fn refusal(draft: &Draft) -> Refusal {
    answer_to(&config(options()), draft).unwrap_err()
}

#[test]
fn identifiers_are_where_they_belong() {
    let other_server = || Draft::new(3).client().with(2, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    for (draft, expected) in [
        (Draft::new(1), Refusal::NoClientId),
        (solicit().server(), Refusal::UnexpectedServerId),
        (Draft::new(3).client(), Refusal::NoServerId),
        (Draft::new(3).server(), Refusal::NoClientId),
        (other_server(), Refusal::OtherServer),
        (Draft::new(4).client().server(), Refusal::UnexpectedServerId),
        (Draft::new(4).client().ia_na(&[]), Refusal::NoAddress),
        (Draft::new(5).client(), Refusal::NoServerId),
        (Draft::new(6).client().server(), Refusal::UnexpectedServerId),
        (Draft::new(8).client(), Refusal::NoServerId),
        (Draft::new(9).server(), Refusal::NoClientId),
        (Draft::new(11).ia_na(&[]), Refusal::UnexpectedIa),
        (Draft::new(11).with(2, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]), Refusal::OtherServer),
        (solicit().client(), Refusal::Repeated),
        (Draft::new(1).with(1, &[0, 4]), Refusal::Duid),
        (Draft::new(1).with(1, &[1; 131]), Refusal::Duid),
        (Draft::new(12), Refusal::Relay),
        (Draft::new(13), Refusal::Relay),
        (Draft::new(2).client(), Refusal::MessageType),
        (Draft::new(10).client(), Refusal::MessageType),
        (Draft::new(0), Refusal::MessageType),
        (solicit().with(6, &[0]), Refusal::OptionLength),
        (solicit().with(16, &[0, 0, 1]), Refusal::OptionLength),
        (solicit().with(61, &[0]), Refusal::OptionLength),
        (solicit().with(62, &[0, 1]), Refusal::OptionLength),
        (solicit().with(3, &[0; 11]), Refusal::OptionLength),
        (solicit().with(3, &[&[0; 12][..], &[0, 5, 0, 4, 1, 2, 3, 4]].concat()), Refusal::OptionLength),
        (solicit().with(3, &[&[0; 12][..], &[0, 5, 0, 24, 1]].concat()), Refusal::OptionOverrun),
        ((0..9).fold(solicit(), |draft, _| draft.ia_na(&[])), Refusal::TooManyOptions),
        ((0..65).fold(solicit(), |draft, _| draft.with(8, &[0, 0])), Refusal::TooManyOptions),
        (solicit().ia_na(&["2001:db8::1"; 9]), Refusal::TooManyOptions),
    ] {
        assert_eq!(refusal(&draft), expected, "{:?}", draft.0);
    }
    assert_eq!(Message::parse(&[1, 0, 0]), Err(Refusal::Truncated));
    let mut cut = solicit().0;
    cut.pop();
    assert_eq!(Message::parse(&cut), Err(Refusal::OptionOverrun));
    assert!(answer_to(&config(options()), &Draft::new(11).server()).is_ok());
}

#[test]
fn unicast_is_told_to_use_multicast_or_discarded() {
    let respond_to = |draft: &Draft, destination: Ipv6Addr| {
        let datagram = Datagram { destination, ..datagram(&draft.0) };
        respond(&config(options()), facts(), &datagram, &Message::parse(&draft.0).unwrap())
    };
    let own = PORT.eui64_link_local();
    let answer = respond_to(&Draft::new(3).client().server().ia_na(&[]), own).unwrap();
    assert_eq!(answer.kind, AnswerType::Reply);
    let status = b"\0\x0d\0\x0f\0\x05use ff02::1:2";
    assert!(answer.message.ends_with(status), "{:?}", answer.message);
    assert_eq!(respond_to(&solicit().ia_na(&[]), own), Err(Refusal::Unicast));
    assert_eq!(respond_to(&Draft::new(11), own), Err(Refusal::Unicast));
    assert_eq!(respond_to(&solicit(), "ff05::1:3".parse().unwrap()), Err(Refusal::Destination));
    assert_eq!(respond_to(&solicit(), "fe80::9".parse().unwrap()), Err(Refusal::Destination));
}

#[test]
fn answers_beyond_1280_bytes_are_not_sent() {
    let addresses = [
        "2001:db8:9::1",
        "2001:db8:9::2",
        "2001:db8:9::3",
        "2001:db8:9::4",
        "2001:db8:9::5",
        "2001:db8:9::6",
        "2001:db8:9::7",
        "2001:db8:9::8",
    ];
    let draft = (0..8).fold(Draft::new(6).client(), |draft, _| draft.ia_na(&addresses));
    assert!(answer(&draft).message.len() <= ANSWER_LEN_MAX, "only one IA is told its addresses");
}

/// A whole frame from the machine.
fn frame(message: &[u8]) -> Vec<u8> {
    let addresses = FrameAddresses {
        source_mac: MACHINE,
        destination_mac: ALL_DHCP_SERVERS_MAC,
        source: MACHINE.eui64_link_local(),
        destination: ALL_DHCP_SERVERS,
    };
    let mut frame = vec![];
    write_frame(&mut frame, &addresses, message);
    // Written as a server's: the ports change places, which leaves the checksum as it is.
    frame[54..58].copy_from_slice(&[0x02, 0x22, 0x02, 0x23]);
    frame
}

#[test]
fn frames_are_checked() {
    let good = frame(&solicit().ia_na(&[]).0);
    let complete = ChecksumOffload::Complete;
    let datagram = parse_frame(&good, complete).unwrap();
    assert_eq!((datagram.mac, datagram.destination), (MACHINE, ALL_DHCP_SERVERS));
    assert!(is_udp(&good));
    let padded = [&good[..], &[0; 20]].concat();
    assert_eq!(parse_frame(&padded, complete).unwrap().payload, datagram.payload);
    let with = |offset: usize, value: u8| {
        let mut frame = good.clone();
        frame[offset] = value;
        frame
    };
    for (frame, expected) in [
        (good[..61].to_vec(), Refusal::Truncated),
        (good[..good.len() - 1].to_vec(), Refusal::Truncated),
        (with(12, 8), Refusal::NotDhcp),
        (with(14, 0x45), Refusal::NotDhcp),
        (with(20, 58), Refusal::NotDhcp),
        (with(57, 0x22), Refusal::NotDhcp),
        (with(6, 0x53), Refusal::EthernetSource),
        (with(59, 7), Refusal::Truncated),
        (with(58, 0xff), Refusal::Truncated),
        (with(66, 1), Refusal::Checksum),
    ] {
        assert_eq!(parse_frame(&frame, complete), Err(expected));
    }
    let mut missing = good.clone();
    missing[60..62].fill(0);
    assert_eq!(parse_frame(&missing, complete), Err(Refusal::Checksum));
    assert!(parse_frame(&missing, ChecksumOffload::NotReady).is_ok());
    let global = with(22, 0x20);
    assert_eq!(parse_frame(&global, ChecksumOffload::NotReady), Err(Refusal::Source));
}

#[test]
fn a_port_answers_twenty_at_once_and_ten_in_a_second() {
    let mut server = Server::new(config(options()));
    let frame = frame(&solicit().ia_na(&[]).0);
    let mut answered = 0;
    for millisecond in 0..10_000 {
        let now = Duration::from_millis(millisecond);
        let handled = server.handle(now, facts(), &frame, ChecksumOffload::Complete);
        assert_eq!(handled.received, Some(MessageType::Solicit));
        match handled.outcome {
            Ok(_) => answered += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::RateLimited),
        }
    }
    assert!((119..=121).contains(&answered), "{answered}");
}

#[test]
fn the_ports_own_frames_are_no_requests() {
    let draft = solicit();
    let own = Datagram { mac: PORT, ..datagram(&draft.0) };
    let message = Message::parse(&draft.0).unwrap();
    assert_eq!(respond(&config(options()), facts(), &own, &message), Err(Refusal::EthernetSource));
}
