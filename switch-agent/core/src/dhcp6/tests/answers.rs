//! What an answer says, read back by an independent codec.

use dhcproto::v6::{DhcpOption, DhcpOptions, Message as Decoded, MessageType as Kind, OptionCode, Status};
use dhcproto::{Decodable, Decoder};

use super::*;

fn decode(answer: &Answer) -> Decoded {
    assert!(answer.message.len() <= ANSWER_LEN_MAX);
    Decoded::decode(&mut Decoder::new(&answer.message)).unwrap()
}

fn ia_options(options: &DhcpOptions) -> &DhcpOptions {
    match options.get(OptionCode::IANA) {
        Some(DhcpOption::IANA(ia)) => &ia.opts,
        other => panic!("{other:?}"),
    }
}

/// Address, preferred and valid lifetime of each address in the IA_NA.
fn told(decoded: &Decoded) -> Vec<(String, u32, u32)> {
    let addresses = ia_options(decoded.opts()).get_all(OptionCode::IAAddr).unwrap_or_default();
    addresses
        .iter()
        .map(|option| match option {
            DhcpOption::IAAddr(ia) => (ia.addr.to_string(), ia.preferred_life, ia.valid_life),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn status(options: &DhcpOptions) -> Option<Status> {
    match options.get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(status)) => Some(status.status),
        _ => None,
    }
}

fn raw(decoded: &Decoded, code: u16) -> Option<Vec<u8>> {
    match decoded.opts().get(OptionCode::from(code)) {
        Some(DhcpOption::Unknown(option)) => Some(option.data().to_vec()),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

fn url(config: &Dhcp6Config, draft: &Draft) -> Option<String> {
    let answer = answer_to(config, draft).unwrap();
    let bytes = raw(&decode(&answer), 59);
    let url = bytes.map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(url, answer.boot_url);
    url
}

#[test]
fn solicit_is_offered_the_computed_address_at_once() {
    let decoded = decode(&answer(&solicit().ia_na(&[])));
    assert_eq!((decoded.msg_type(), decoded.xid()), (Kind::Advertise, [0xa, 0xb, 0xc]));
    assert_eq!(told(&decoded), [(OWN.to_owned(), 1800, 3600)]);
    let ia = match decoded.opts().get(OptionCode::IANA) {
        Some(DhcpOption::IANA(ia)) => ia.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((ia.id, ia.t1, ia.t2), (0x0102_0304, 900, 1440));
    assert_eq!(decoded.opts().get(OptionCode::Preference), Some(&DhcpOption::Preference(255)));
    assert_eq!(decoded.opts().get(OptionCode::ClientId), Some(&DhcpOption::ClientId(CLIENT_DUID.to_vec())));
    assert_eq!(decoded.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(SERVER_DUID.to_vec())));
    assert_eq!(decoded.opts().iter().count(), 4, "nothing that was not asked for: {decoded:?}");
}

#[test]
fn request_and_rapid_commit_get_a_reply() {
    let decoded = decode(&answer(&Draft::new(3).client().server().ia_na(&["2001:db8:0:2::77"])));
    assert_eq!(decoded.msg_type(), Kind::Reply);
    assert_eq!(told(&decoded), [(OWN.to_owned(), 1800, 3600)]);
    let rapid = decode(&answer(&solicit().with(14, &[]).ia_na(&[])));
    assert_eq!(rapid.msg_type(), Kind::Reply);
    assert_eq!(rapid.opts().get(OptionCode::RapidCommit), Some(&DhcpOption::RapidCommit));
    assert_eq!(told(&rapid).len(), 1);
}

#[test]
fn an_address_of_elsewhere_is_not_on_link_for_a_request_and_ends_for_renew_and_rebind() {
    let elsewhere = "2001:db8:9:9::1";
    let request = decode(&answer(&Draft::new(3).client().server().ia_na(&[elsewhere])));
    assert_eq!((told(&request), status(ia_options(request.opts()))), (vec![], Some(Status::NotOnLink)));
    for draft in [Draft::new(5).client().server(), Draft::new(6).client()] {
        let decoded = decode(&answer(&draft.ia_na(&[elsewhere, OWN])));
        assert_eq!(told(&decoded), [(OWN.to_owned(), 1800, 3600), (elsewhere.to_owned(), 0, 0)]);
    }
}

#[test]
fn confirm_knows_its_own_link() {
    for (addresses, expected) in
        [(vec![OWN, "2001:db8:0:2::5"], Status::Success), (vec![OWN, "2001:db8:0:3::5"], Status::NotOnLink)]
    {
        let decoded = decode(&answer(&Draft::new(4).client().ia_na(&addresses)));
        assert_eq!((decoded.msg_type(), status(decoded.opts())), (Kind::Reply, Some(expected)));
        assert_eq!(decoded.opts().get(OptionCode::IANA), None);
    }
}

#[test]
fn release_and_decline_succeed() {
    for kind in [8, 9] {
        let decoded = decode(&answer(&Draft::new(kind).client().server().ia_na(&[OWN])));
        assert_eq!((decoded.msg_type(), status(decoded.opts())), (Kind::Reply, Some(Status::Success)));
    }
}

#[test]
fn one_address_and_no_more() {
    let mut ias = solicit().ia_na(&[]).ia_na(&[]).with(4, &IAID).with(25, &[&IAID[..], &[0; 8]].concat());
    let decoded = decode(&answer(&ias));
    let found: Vec<(u16, Option<Status>)> = decoded
        .opts()
        .iter()
        .filter_map(|option| match option {
            DhcpOption::IANA(ia) => Some((3, status(&ia.opts))),
            DhcpOption::IATA(ia) => Some((4, status(&ia.opts))),
            DhcpOption::IAPD(ia) => Some((25, status(&ia.opts))),
            _ => None,
        })
        .collect();
    let none = Some(Status::NoAddrsAvail);
    assert_eq!(found, [(3, None), (3, none), (4, none), (25, Some(Status::NoPrefixAvail))]);
    ias.0[0] = 6;
    let rebind = decode(&answer(&ias));
    let bindings = rebind.opts().iter().filter(|option| match option {
        DhcpOption::IANA(ia) => status(&ia.opts) == Some(Status::NoBinding),
        DhcpOption::IATA(ia) => status(&ia.opts) == Some(Status::NoBinding),
        DhcpOption::IAPD(ia) => status(&ia.opts) == Some(Status::NoBinding),
        _ => false,
    });
    assert_eq!(bindings.count(), 3);
}

#[test]
fn a_reserved_interface_identifier_is_no_address() {
    let prefix = "2001:db8:0:2::/64".parse().unwrap();
    assert_eq!(machine_address(prefix, MACHINE), Some(OWN.parse().unwrap()));
    assert_eq!(machine_address(prefix, MacAddr([0, 0, 0x5e, 0, 1, 1])), None);
    assert_eq!(machine_address(prefix, MacAddr([1, 0, 0, 0, 0, 1])), None);
    assert_ne!(
        machine_address(prefix, MacAddr([2, 0, 0, 0, 0, 1])),
        Some("2001:db8:0:2::1".parse().unwrap())
    );
}

#[test]
fn information_comes_when_asked_for() {
    let asked = [23, 24, 56, 32, 82, 83, 59, 60];
    let decoded = decode(&answer(&Draft::new(11).asks(&asked)));
    assert_eq!(decoded.msg_type(), Kind::Reply);
    assert_eq!(decoded.opts().get(OptionCode::ClientId), None);
    assert_eq!(
        decoded.opts().get(OptionCode::DomainNameServers),
        Some(&DhcpOption::DomainNameServers(vec!["2001:db8::53".parse().unwrap()]))
    );
    let Some(DhcpOption::DomainSearchList(names)) = decoded.opts().get(OptionCode::DomainSearchList) else {
        panic!("{decoded:?}")
    };
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].to_string().trim_end_matches('.'), "boot.example");
    assert_eq!(raw(&decoded, 32), Some(3600u32.to_be_bytes().to_vec()));
    assert_eq!(raw(&decoded, 82), Some(vec![0, 0, 0, 60]));
    assert_eq!(raw(&decoded, 83), Some(vec![0, 0, 0, 60]));
    assert_eq!(decoded.opts().get_all(OptionCode::from(56)).map(<[_]>::len), Some(2), "no IPv4 server");
    assert_eq!(raw(&decoded, 59), None);
    // Only an Information-request has a refresh time.
    let solicit = decode(&answer(&solicit().asks(&asked)));
    assert_eq!(raw(&solicit, 32), None);
}

#[test]
fn boot_url_by_architecture_and_user_class() {
    let mut options = options();
    options.boot_urls = vec![
        boot_url("x64-uefi-http", "http://[2001:db8::1]/x64.efi"),
        boot_url("19", "http://[2001:db8::1]/arm64.efi"),
        boot_url("default", "http://[2001:db8::1]/any"),
    ];
    options.boot_params = vec!["quiet".to_owned(), "console=ttyS0".to_owned()];
    let config = config(options);
    let of = |draft: Draft| url(&config, &draft.asks(&[59, 60, 23, 16]));
    assert_eq!(of(solicit().firmware(16)).as_deref(), Some("http://[2001:db8::1]/x64.efi"));
    assert_eq!(of(solicit().firmware(19)).as_deref(), Some("http://[2001:db8::1]/arm64.efi"));
    assert_eq!(of(solicit().firmware(7)).as_deref(), Some("http://[2001:db8::1]/any"));
    let several = solicit().with(61, &[0, 28, 0, 19, 0, 16]);
    assert_eq!(of(several).as_deref(), Some("http://[2001:db8::1]/arm64.efi"));
    let ipxe = || solicit().firmware(16).with(15, b"\0\x03foo\0\x04iPXE");
    assert_eq!(of(ipxe()).as_deref(), Some("http://[2001:db8:0:2::1]:18090/boot.ipxe"));
    assert_eq!(url(&config, &solicit().firmware(16)), None, "not asked for");
    let decoded = decode(&answer_to(&config, &solicit().firmware(16).asks(&[59, 60])).unwrap());
    assert_eq!(raw(&decoded, 60), Some(b"\0\x05quiet\0\x0dconsole=ttyS0".to_vec()));

    let without_proxy = Dhcp6Config { proxy_port: None, ..config.clone() };
    assert_eq!(url(&without_proxy, &ipxe().asks(&[59])), None, "iPXE is not sent to itself");
}

#[test]
fn firmware_finds_its_vendor_class() {
    let decoded = decode(&answer(&solicit().ia_na(&[]).firmware(16)));
    let Some(DhcpOption::VendorClass(class)) = decoded.opts().get(OptionCode::VendorClass) else {
        panic!("{decoded:?}")
    };
    assert_eq!((class.num, &class.data[..]), (343, &[b"HTTPClient".to_vec()][..]));
    let other = decode(&answer(&solicit().with(16, b"\0\0\x01\x57\0\x03foo")));
    assert_eq!(other.opts().get(OptionCode::VendorClass), None);
}

#[test]
fn placeholders_are_the_ports_own() {
    let router = "2001:db8::1".parse().unwrap();
    let url = expand("http://[{router}]:{proxy_port}/${net0/mac}", router, 18090);
    assert_eq!(url, "http://[2001:db8::1]:18090/${net0/mac}");
}

#[test]
fn the_longest_answer_is_foreseen() {
    let mut options = options();
    options.boot_urls = vec![boot_url("default", &format!("http://{}", "a".repeat(500)))];
    options.boot_params = vec!["x".repeat(100)];
    let most = longest_answer(&options);
    assert!((900..=ANSWER_LEN_MAX).contains(&most), "{most}");
    let asked = [59, 60, 23, 24, 56, 32, 82, 83];
    let draft = Draft::new(3).with(1, &[7; 130]).server().ia_na(&[OWN]).firmware(16).asks(&asked);
    let answer = answer_to(&config(options), &draft).unwrap();
    assert!(answer.message.len() <= most, "{} of {most}", answer.message.len());
    assert!(answer.boot_url.is_some() && raw(&decode(&answer), 83).is_some());
}
