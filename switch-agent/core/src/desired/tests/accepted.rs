//! Rows that use every field.

use super::*;

#[test]
fn every_global_field_is_read() {
    let mut config = base();
    config.insert(
        "BOOT_NETWORK",
        "global",
        fields([
            ("admin_status", "down"),
            ("switch_id", "leaf-1.fra"),
            ("control_api_url", "https://[2001:db8:f::1]:8443/metal/"),
            ("control_api_dialect", "metal-stack-v2"),
            ("control_api_vrf", "mgmt"),
            ("control_api_ca_file", "/etc/ca.pem"),
            ("control_api_client_cert_file", "/etc/cert.pem"),
            ("control_api_client_key_file", "/etc/key.pem"),
            ("control_api_token_file", "/etc/token"),
            ("control_api_component_type", "metal-core"),
            ("machine_token", "token"),
            ("proxy_port", "8080"),
            ("leak_method", "frr-mgmt"),
        ]),
    );
    let global = Desired::from_config(&config).global;
    assert_eq!(
        global,
        Global {
            admin_up: false,
            switch_id: "leaf-1.fra".to_owned(),
            chassis_mac: "52:54:00:aa:00:01".parse().ok(),
            upstream: Some(UpstreamSpec {
                host: "2001:db8:f::1".to_owned(),
                port: 8443,
                base: "/metal".to_owned(),
                dialect: Dialect::MetalStackV2,
                machine_token: MachineToken::Token,
                component_type: ComponentType::MetalCore,
                vrf: "mgmt".to_owned(),
                ca_file: Some("/etc/ca.pem".to_owned()),
                client_cert_file: Some("/etc/cert.pem".to_owned()),
                client_key_file: Some("/etc/key.pem".to_owned()),
                token_file: Some("/etc/token".to_owned()),
                metal_stack_v1: None,
            }),
            proxy_port: 8080,
            leak_method: LeakMethod::FrrMgmt,
        }
    );
}

#[test]
fn every_field_of_metal_stack_v1_is_read() {
    let mut config = base();
    let rows = [
        ("control_api_url", "https://api.example.com/metal"),
        ("control_api_dialect", "metal-stack-v1"),
        ("metal_stack_grpc_address", "[2001:db8:f::1]:50051"),
        ("metal_stack_grpc_ca_file", "/etc/grpc-ca.pem"),
        ("metal_stack_grpc_cert_file", "/etc/grpc.pem"),
        ("metal_stack_grpc_key_file", "/etc/grpc.key"),
        ("metal_stack_hmac_file", "/etc/hmac"),
    ];
    config.insert("BOOT_NETWORK", "global", fields(rows));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.rejected, []);
    assert_eq!(
        desired.global.upstream.unwrap().metal_stack_v1,
        Some(Box::new(MetalStackV1Spec {
            grpc_host: "2001:db8:f::1".to_owned(),
            grpc_port: 50051,
            grpc_ca_file: Some("/etc/grpc-ca.pem".to_owned()),
            grpc_cert_file: "/etc/grpc.pem".to_owned(),
            grpc_key_file: "/etc/grpc.key".to_owned(),
            hmac_file: "/etc/hmac".to_owned(),
        }))
    );
    // Without one of them nothing goes out.
    for field in rows.iter().map(|(field, _)| *field).filter(|field| field.starts_with("metal_stack")) {
        let mut config = base();
        let others: Vec<_> = rows.iter().copied().filter(|(name, _)| *name != field).collect();
        config.insert("BOOT_NETWORK", "global", row(&others));
        let desired = Desired::from_config(&config);
        let optional = field == "metal_stack_grpc_ca_file";
        assert_eq!(desired.global.upstream.is_some(), optional, "{field}");
        let messages: Vec<String> = desired.rejected.iter().map(ToString::to_string).collect();
        let wanted = format!("BOOT_NETWORK|global: {field}: is needed by control_api_dialect metal-stack-v1");
        assert_eq!(messages, if optional { Vec::new() } else { vec![wanted] });
    }
}

const FULL_PARTITION: [(&str, &str); 41] = [
    ("prefix", "2001:db8:0:10::/60"),
    ("vrf_name", "VrfBootstrap"),
    ("manage_vrf", "disabled"),
    ("advertise", "disabled"),
    ("proxy", "disabled"),
    ("leak", "disabled"),
    ("isolate", "disabled"),
    ("dhcp6", "enabled"),
    (
        "dhcp6_boot_url@",
        "x64-uefi-http|http://[{router}]:8080/x64.efi,7|tftp://[2001:db8:f::4]/x64.efi,ipxe|https://boot.example.com/${uuid}",
    ),
    ("dhcp6_boot_param@", "quiet,console=ttyS0"),
    ("service_address@", "2001:db8:f::53"),
    ("ra_profile", "strict"),
    ("max_rtr_adv_interval", "1800"),
    ("min_rtr_adv_interval", "1350"),
    ("adv_default_lifetime", "9000"),
    ("adv_valid_lifetime", "4294967295"),
    ("adv_preferred_lifetime", "4294967295"),
    ("adv_on_link_flag", "disabled"),
    ("adv_autonomous_flag", "disabled"),
    ("adv_pd_preferred_flag", "enabled"),
    ("adv_link_mtu", "9216"),
    ("adv_cur_hop_limit", "255"),
    ("adv_reachable_time", "3600000"),
    ("adv_retrans_timer", "250"),
    ("prf", "high"),
    ("rdnss@", "2001:db8:f::1, fe80::1"),
    ("dnssl@", "boot.example.com.,_x.example"),
    (
        "dnr@",
        "1;dns.example.com.;2001:db8:f::1|fe80::1;alpn=dot|h2;port=853;dohpath=/q{?dns},65535;adn-only.example",
    ),
    ("route_info@", "2001:db8:1::/48;high;60,2001:db8:2::/48;low,2001:db8:3::/48"),
    ("pref64", "64:ff9b::/96"),
    ("captive_portal", "urn:ietf:params:capport:unrestricted"),
    ("ntp_servers@", "2001:DB8:f::2,10.0.0.1,NTP.example.com"),
    ("leak_vrf", "VrfFabric"),
    ("leak_prefix@", "2001:db8:f::/64,::/0"),
    ("api_allow@", "GET|POST /v1/*/**,!* /v1/admin/**"),
    ("boot_kernel_url", "http://[2001:db8:f::3]:8080/k?mac=${net0/mac}"),
    ("boot_initrd_url@", "https://images.example.com/i1,https://images.example.com/i2"),
    ("boot_cmdline", "console=ttyS0 ip=off"),
    ("boot_template_file", "/etc/boot.ipxe"),
    ("boot_root_path@", "iscsi:[2001:db8::9]::::iqn.2026-11.example:a,nvme+tcp://[2001:db8::9]:4420/nqn/1"),
    ("machine_config_file", "/etc/machine.json"),
];

#[test]
fn every_partition_field_is_read() {
    let mut config = base();
    config.insert("BOOT_NETWORK_PARTITION", "p1", row(&FULL_PARTITION));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.rejected, []);
    let partition = &desired.partitions[&"p1".parse().unwrap()];
    let roles =
        [partition.manage_vrf, partition.advertise, partition.proxy, partition.leak, partition.isolate];
    assert_eq!(roles, [false; 5]);
    assert!(partition.ra.adv_other_config_flag && partition.ra.adv_managed_flag);
    let dhcp6 = partition.dhcp6.as_ref().unwrap();
    let clients: Vec<String> = dhcp6.boot_urls.iter().map(|url| url.client.to_string()).collect();
    assert_eq!(clients, ["x64-uefi-http", "x64-uefi", "ipxe"]);
    assert_eq!(dhcp6.boot_params, ["quiet", "console=ttyS0"]);
    assert_eq!((dhcp6.valid_s, dhcp6.preferred_s), (u32::MAX, u32::MAX));
    assert_eq!((&dhcp6.dns_servers, &dhcp6.domain_search), (&partition.ra.rdnss, &partition.ra.dnssl));
    assert_eq!(dhcp6.ntp_servers, partition.ntp_servers);
    assert_eq!(partition.vrf.as_str(), "VrfBootstrap");
    assert_eq!(partition.service_addresses, ["2001:db8:f::53".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(partition.ra.profile, RaProfile::Strict);
    assert_eq!(partition.ra.max_rtr_adv_interval, Duration::from_secs(1800));
    assert_eq!(partition.ra.min_rtr_adv_interval, Duration::from_secs(1350));
    assert_eq!(partition.ra.adv_default_lifetime_s, 9000);
    let prefix = PrefixVariables {
        adv_valid_lifetime_s: u32::MAX,
        adv_preferred_lifetime_s: u32::MAX,
        adv_on_link_flag: false,
        adv_autonomous_flag: false,
        adv_pd_preferred_flag: true,
    };
    assert_eq!(partition.adv_prefix, prefix);
    assert_eq!(partition.ra.adv_link_mtu, Some(9216));
    assert_eq!(partition.ra.adv_cur_hop_limit, 255);
    assert_eq!(partition.ra.adv_reachable_time_ms, 3_600_000);
    assert_eq!(partition.ra.adv_retrans_timer_ms, 250);
    assert_eq!(partition.ra.prf, Preference::High);
    assert_eq!(partition.ra.rdnss.len(), 2);
    assert_eq!(partition.ra.dnssl, ["boot.example.com", "_x.example"]);
    let encrypted = EncryptedDns {
        service_priority: 1,
        adn: "dns.example.com".to_owned(),
        addresses: vec!["2001:db8:f::1".parse().unwrap(), "fe80::1".parse().unwrap()],
        svc_params: SvcParams {
            alpn: vec!["dot".to_owned(), "h2".to_owned()],
            port: Some(853),
            dohpath: Some("/q{?dns}".to_owned()),
        },
    };
    let adn_only = EncryptedDns {
        service_priority: u16::MAX,
        adn: "adn-only.example".to_owned(),
        addresses: vec![],
        svc_params: SvcParams::default(),
    };
    assert_eq!(partition.ra.dnr, [encrypted, adn_only]);
    let routes = partition.ra.route_info.iter().map(|r| (r.preference, r.lifetime_s));
    assert_eq!(
        routes.collect::<Vec<_>>(),
        [(Preference::High, 60), (Preference::Low, 9000), (Preference::Medium, 9000)]
    );
    assert_eq!(partition.ra.pref64, "64:ff9b::/96".parse().ok());
    assert!(partition.ra.captive_portal.is_some());
    assert_eq!(partition.ntp_servers, ["2001:db8:f::2", "10.0.0.1", "ntp.example.com"]);
    assert_eq!(partition.leak_vrf, "VrfFabric");
    assert_eq!(partition.leak_prefixes.len(), 2);
    assert_eq!(
        partition.api_allow,
        [
            PathRule { deny: false, verbs: vec!["GET".into(), "POST".into()], pattern: "/v1/*/**".into() },
            PathRule { deny: true, verbs: vec![], pattern: "/v1/admin/**".into() },
        ]
    );
    assert!(partition.boot_kernel_url.as_ref().is_some_and(|url| url.ends_with("${net0/mac}")));
    assert_eq!(partition.boot_initrd_urls.len(), 2);
    assert_eq!(partition.boot_cmdline.as_deref(), Some("console=ttyS0 ip=off"));
    assert_eq!(partition.boot_template_file.as_deref(), Some("/etc/boot.ipxe"));
    assert_eq!(partition.machine_config_file.as_deref(), Some("/etc/machine.json"));
}

/// A port's router variables are the partition's but for its own, in every field.
#[test]
fn a_port_overrides_router_variables_and_nothing_else() {
    let mut config = base();
    config.insert(
        "BOOT_NETWORK_PARTITION",
        "p1",
        fields([("prefix", "2001:db8::/56"), ("rdnss@", "fd00::53"), ("dhcp6", "enabled")]),
    );
    let variables = FULL_PARTITION.iter().filter(|(name, _)| router::FIELDS.contains(name));
    let mut own: Vec<(&str, &str)> = variables.copied().filter(|(name, _)| *name != "rdnss@").collect();
    own.push(("partition", "p1"));
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&own));
    let desired = Desired::from_config(&config);
    assert_eq!(desired.rejected, []);

    let mut full = config.clone();
    full.insert("BOOT_NETWORK_PARTITION", "p1", row(&FULL_PARTITION));
    let full = Desired::from_config(&full);
    let of_partition = &desired.partitions[&"p1".parse().unwrap()];
    let of_port = desired.partition_of(&desired.ports[&"Ethernet4".parse().unwrap()]).unwrap();
    let expected = &full.partitions[&"p1".parse().unwrap()];
    let rdnss = of_partition.ra.rdnss.clone();
    assert_eq!(of_port.ra, RaConfig { rdnss, ..expected.ra.clone() });
    assert!(of_port.ra.adv_managed_flag && of_port.ra.adv_other_config_flag);
    assert_eq!(of_port.adv_prefix, expected.adv_prefix);
    let told = of_port.dhcp6.as_ref().unwrap();
    assert_eq!(
        (told.valid_s, &told.dns_servers),
        (expected.adv_prefix.adv_valid_lifetime_s, &of_port.ra.rdnss)
    );
    assert_eq!(told.domain_search, expected.ra.dnssl);
    let of_partition = of_partition.clone();
    let (ra, adv_prefix, dhcp6) =
        (of_partition.ra.clone(), of_partition.adv_prefix, of_partition.dhcp6.clone());
    assert_eq!(Partition { ra, adv_prefix, dhcp6, ..Partition::clone(of_port) }, *of_partition);
    assert_eq!(desired.ports[&"Ethernet0".parse().unwrap()].own, None);
}

#[test]
fn a_port_that_repeats_its_partition_has_nothing_of_its_own() {
    let mut config = base();
    let own = [("partition", "p1"), ("adv_retrans_timer", "100"), ("rdnss@", "")];
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&own));
    assert_eq!(Desired::from_config(&config), Desired::from_config(&base()));
}

#[test]
fn a_port_takes_the_default_of_its_own_profile() {
    let mut config = base();
    config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&[("partition", "p1"), ("ra_profile", "strict")]));
    let desired = Desired::from_config(&config);
    let of_port = desired.partition_of(&desired.ports[&"Ethernet4".parse().unwrap()]).unwrap();
    assert_eq!((of_port.ra.profile, of_port.ra.adv_retrans_timer_ms), (RaProfile::Strict, 0));
}
