//! Router discovery: solicitations, foreign advertisements, probes and listener reports, and what an
//! advertiser does with them.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use switch_agent_core::name::MacAddr;
use switch_agent_core::ndp::{
    ChecksumOffload, FrameAddresses, MESSAGE_LEN_MAX, Message, parse_frame, write_frame,
};
use switch_agent_core::ra::{Advertiser, AdvertiserSpec, RaConfig, Trigger};

const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const PORT: MacAddr = MacAddr([0x22, 0, 0, 0, 0, 9]);
/// Advertisements that one input may cause; a bounded number of machines is answered.
const SENT_MAX: usize = 16;

fn advertiser() -> Advertiser {
    let spec = AdvertiserSpec {
        port: "Ethernet4".parse().unwrap(),
        ifindex: 7,
        mac: PORT,
        link_local: PORT.eui64_link_local(),
        forwarding: true,
        config: RaConfig::default(),
        dhcp6: None,
    };
    Advertiser::new(spec, true, 1, Duration::ZERO)
}

fn take_in(advertiser: &mut Advertiser, frame: &[u8], offload: ChecksumOffload) {
    let now = Duration::from_secs(1);
    match parse_frame(frame, offload) {
        Ok(Message::Solicit(solicit)) => {
            assert!(solicit.source.is_none_or(|source| !source.is_multicast()));
            assert!(solicit.source.is_some() || solicit.sllao.is_none());
            advertiser.handle_solicit(now, &solicit);
        }
        Ok(Message::Advert(advert)) => assert!(advert.source.is_unicast_link_local()),
        Ok(Message::Probe(probe)) => {
            advertiser.handle_trigger(now, Trigger::Probe, probe.mac);
        }
        Ok(Message::MldReport(report)) => {
            advertiser.handle_trigger(now, Trigger::MldReport, report.mac);
        }
        Err(_) => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let mut advertiser = advertiser();
    take_in(&mut advertiser, data, ChecksumOffload::Complete);
    take_in(&mut advertiser, data, ChecksumOffload::NotReady);
    // The input as an ICMPv6 message in a frame with a good checksum.
    let addresses = FrameAddresses {
        source_mac: MACHINE,
        destination_mac: MacAddr([0x33, 0x33, 0, 0, 0, 2]),
        source: MACHINE.eui64_link_local(),
        destination: "ff02::2".parse().unwrap(),
    };
    let mut frame = Vec::new();
    write_frame(&mut frame, &addresses, data);
    take_in(&mut advertiser, &frame, ChecksumOffload::Complete);

    let mut sent = 0;
    while let Some(transmit) = advertiser.poll_transmit(Duration::from_secs(1)) {
        assert!(transmit.messages.iter().all(|message| message.len() <= MESSAGE_LEN_MAX));
        sent += 1;
        assert!(sent <= SENT_MAX);
    }
});
