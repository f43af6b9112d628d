//! Single fields that do not hold, with the exact message each one gets.

use super::*;

const NUMBER: &str = "must be a whole number, ";
const PATH: &str = "must be an absolute path of a file, without . and ..";
const FLAG: &str = "must be one of enabled, disabled";
const HOST: &str = "must name a host: a DNS name, an IPv4 address or an IPv6 address in brackets";
const DNS: &str = "must be a DNS name (labels of 1 to 63 letters, digits, - and _, at most 253 bytes)";
const UNICAST: &str = "must be a routed IPv6 unicast address, without a prefix length (it stands for a /128)";
const SCOPE: &str = "must not be link-local, multicast, loopback or IPv4-mapped";
const LENGTH: &str = "must have a length from /40 to /64";
const ROUTE: &str = "must be prefix[;low|medium|high[;lifetime]], like 2001:db8::/48;high;1800";
const DNR: &str = "must be priority;name[;address|address;alpn=dot|doq|h2|h3[;port=n][;dohpath=/path{?dns}]]";
const DOHPATH: &str = "must have a dohpath with alpn h2 or h3, and with nothing else (RFC 9461 section 5)";
const PATTERN: &str = "must have a path of plain segments, *, and ** as the last one";
const VRF: &str = "must be a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)";
const DOWNLOAD: &str = "must be an http:// or https:// URL of printable ASCII, at most 1024 bytes";
const BOOT_URL: &str = "must be client|URL, like x64-uefi-http|http://[{router}]:8080/x64.efi; a client is ipxe, \
                        default, or an architecture by its number or word (x64-uefi-http, arm64-uefi-http, x64-uefi, \
                        arm64-uefi, x86-bios, ...)";
const BOOT_SCHEME: &str = "must have a URL with http://, https:// or tftp:// behind the |";
const CAPPORT: &str = "must be an https:// URL or urn:ietf:params:capport:unrestricted";

/// One bad field in an otherwise good row: the message is row, field, value and the rule given here.
fn assert_field_rules(table: &str, key: &str, others: &[(&str, &str)], cases: &[(&str, &str, &str)]) {
    for (field, value, rule) in cases {
        let mut fields = row(others);
        fields.insert((*field).to_owned(), (*value).to_owned());
        let messages = messages(|config| config.insert(table, key, fields));
        let about_row: Vec<_> =
            messages.iter().filter(|m| m.starts_with(&format!("{table}|{key}:"))).collect();
        assert_eq!(about_row, [&format!("{table}|{key}: {field} = {value:?}: {rule}")]);
    }
}

#[test]
fn global_fields() {
    assert_field_rules(
        "BOOT_NETWORK",
        "global",
        &[],
        &[
            ("admin_status", "enabled", "must be one of up, down"),
            ("admin_status", "", "must be one of up, down"),
            ("switch_id", "", "must be 1 to 64 letters, digits, - . _ or :"),
            ("switch_id", "leaf 1", "must be 1 to 64 letters, digits, - . _ or :"),
            ("control_api_url", "http://api", "must be https://host[:port][/base]"),
            ("control_api_url", "api.example.com", "must be https://host[:port][/base]"),
            ("control_api_url", "https://u:p@api", "must not carry a user name or password"),
            ("control_api_url", "https://api/?a=b", "must not have a query or a fragment"),
            ("control_api_url", "https://api#x", "must not have a query or a fragment"),
            ("control_api_url", "https://", HOST),
            ("control_api_url", "https://2001:db8::1/", HOST),
            ("control_api_url", "https://[2001:db8::1/", HOST),
            ("control_api_url", "https://a_b..c", HOST),
            ("control_api_url", "https://api:0", "must have a port from 1 to 65535"),
            ("control_api_url", "https://api:", "must have a port from 1 to 65535"),
            (
                "control_api_url",
                "https://api/a//b",
                "must have a base path of plain segments (letters, digits, - . _ ~)",
            ),
            ("control_api_dialect", "v2", "must be one of generic, metal-stack-v2, metal-stack-v1"),
            (
                "control_api_vrf",
                "eth0",
                "must be default, mgmt or a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)",
            ),
            ("control_api_ca_file", "ca.pem", PATH),
            ("control_api_ca_file", "/etc/../ca.pem", PATH),
            ("control_api_token_file", "/", PATH),
            (
                "control_api_component_type",
                "metal-boot",
                "must be one of pixiecore, metal-core, metal-bmc, metal-image-cache-sync, metal-console, \
                 metal-metrics-exporter",
            ),
            ("machine_token", "jwt", "must be one of handle, token"),
            ("control_api_client_cert_file", "/c", "needs control_api_client_key_file as well"),
            ("control_api_client_key_file", "/k", "needs control_api_client_cert_file as well"),
            ("proxy_port", "0", "must be a whole number, 1..65535"),
            ("proxy_port", "65536", "must be a whole number, 1..65535"),
            ("leak_method", "frr", "must be one of auto, vtysh, static-route, frr-mgmt, render-only"),
        ],
    );
}

#[test]
fn global_fields_of_metal_stack_v1() {
    let others = [
        ("control_api_url", "https://api.example.com/metal"),
        ("control_api_dialect", "metal-stack-v1"),
        ("metal_stack_grpc_address", "api.example.com:50051"),
        ("metal_stack_grpc_cert_file", "/etc/grpc.pem"),
        ("metal_stack_grpc_key_file", "/etc/grpc.key"),
        ("metal_stack_hmac_file", "/etc/hmac"),
    ];
    let cases = [
        ("metal_stack_grpc_address", "api.example.com", "must be host:port"),
        ("metal_stack_grpc_address", "https://api.example.com:1", "must have a port from 1 to 65535"),
        ("metal_stack_grpc_address", "2001:db8::1", HOST),
        ("metal_stack_grpc_address", "u@api:1", "must not carry a user name or password"),
        ("metal_stack_grpc_address", "a_b..c:1", HOST),
        ("metal_stack_grpc_ca_file", "ca.pem", PATH),
        ("metal_stack_grpc_cert_file", "c.pem", PATH),
        ("metal_stack_grpc_key_file", "k.pem", PATH),
        ("metal_stack_hmac_file", "/etc/../hmac", PATH),
    ];
    assert_field_rules("BOOT_NETWORK", "global", &others, &cases);
    let other_dialect = "needs control_api_dialect metal-stack-v1";
    assert_field_rules(
        "BOOT_NETWORK",
        "global",
        &[],
        &[("metal_stack_hmac_file", "/etc/hmac", other_dialect)],
    );
}

#[test]
fn partition_addresses() {
    let prefix = ("prefix", "2001:db8::/56");
    assert_field_rules(
        "BOOT_NETWORK_PARTITION",
        "p1",
        &[prefix],
        &[
            ("prefix", "", "must be an IPv6 prefix (address/length)"),
            ("prefix", "2001:db8::", "must be an IPv6 prefix (address/length)"),
            ("prefix", "10.0.0.0/8", "must be an IPv6 prefix (address/length)"),
            ("prefix", "2001:db8::1/56", "has host bits set; did you mean 2001:db8::/56?"),
            ("prefix", "2001:db8::/39", LENGTH),
            ("prefix", "2001:d00::/32", LENGTH),
            ("prefix", "2001:db8::/65", LENGTH),
            ("prefix", "fe80::/64", SCOPE),
            ("prefix", "ff02::/64", SCOPE),
            ("prefix", "::/64", "must not contain the unspecified and the loopback address"),
            ("vrf_name", "Boot", VRF),
            ("vrf_name", "VrfBoot-too-long", VRF),
            ("vrf_name", "vrfboot", VRF),
            ("service_address@", "2001:db8:f::1/128", UNICAST),
            ("service_address@", "fe80::1", UNICAST),
            ("service_address@", "ff02::1", UNICAST),
            ("service_address@", "::1", UNICAST),
            (
                "service_address@",
                "2001:db8::53",
                "must not be inside 2001:db8::/56, the prefix of partition p1",
            ),
            ("leak_vrf", "fabric", "must be default or a VRF name (Vrf[A-Za-z0-9_-]+, at most 15 bytes)"),
            ("leak_vrf", "VrfBoot-p1", "must not be the partition's own VRF"),
            ("leak_prefix@", "2001:db8:f::1/64", "has host bits set; did you mean 2001:db8:f::/64?"),
            ("leak_prefix@", "2001:db8::/32", "must not overlap the partition's own prefix 2001:db8::/56"),
            (
                "leak_prefix@",
                "2001:db8:0:1::/64",
                "must not overlap the partition's own prefix 2001:db8::/56",
            ),
            ("leak_prefix@", "ff00::/8", SCOPE),
            (
                "pref64",
                "64:ff9b::/95",
                "must have one of the NAT64 lengths /32, /40, /48, /56, /64, /96 (RFC 8781)",
            ),
            ("rdnss@", "10.0.0.1", "must be an IPv6 unicast address"),
            ("rdnss@", "ff02::fb", "must be an IPv6 unicast address"),
            ("ntp_servers@", "224.0.1.1", "must be a unicast address or a DNS name"),
            ("ntp_servers@", "1.2.3", "must be a DNS name or an IP address"),
            ("route_info@", "2001:db8::1/48", ROUTE),
            ("route_info@", "2001:db8::/48;reserved", ROUTE),
            ("route_info@", "2001:db8::/48;high;1800s", ROUTE),
            ("route_info@", "2001:db8::/48;high;1800;x", ROUTE),
        ],
    );
}

#[test]
fn partition_router_variables() {
    let prefix = ("prefix", "2001:db8::/56");
    let number = |range: &str| format!("{NUMBER}{range}");
    assert_field_rules(
        "BOOT_NETWORK_PARTITION",
        "p1",
        &[prefix],
        &[
            ("ra_profile", "fast", "must be one of boot, strict"),
            ("max_rtr_adv_interval", "3", &number("4..1800")),
            ("max_rtr_adv_interval", "1801", &number("4..1800")),
            ("max_rtr_adv_interval", "10s", &number("4..1800")),
            ("min_rtr_adv_interval", "2", &number("3..1350")),
            ("min_rtr_adv_interval", "8", "must be at most 0.75 of max_rtr_adv_interval (10): 7"),
            ("adv_default_lifetime", "9", "must be 0 or 10 (max_rtr_adv_interval) to 9000"),
            ("adv_default_lifetime", "9001", &number("0..9000")),
            ("adv_valid_lifetime", "0", &number("1..4294967295")),
            ("adv_valid_lifetime", "600", "must be at least adv_preferred_lifetime (1800 by default)"),
            ("adv_preferred_lifetime", "3601", "must be at most adv_valid_lifetime (3600)"),
            ("adv_preferred_lifetime", "-1", &number("0..4294967295")),
            ("adv_link_mtu", "1279", &number("1280..9216")),
            ("adv_link_mtu", "9217", &number("1280..9216")),
            ("adv_cur_hop_limit", "256", &number("0..255")),
            ("adv_reachable_time", "3600001", &number("0..3600000")),
            ("adv_retrans_timer", "4294967296", &number("0..4294967295")),
            ("prf", "reserved", "must be one of low, medium, high"),
            ("dnssl@", "-bad.example", DNS),
            ("dnssl@", "a..b", DNS),
            ("adv_on_link_flag", "true", FLAG),
            ("adv_autonomous_flag", "", FLAG),
            ("adv_pd_preferred_flag", "1", FLAG),
            ("dnr@", "dns.example", DNR),
            ("dnr@", "0;dns.example", DNR),
            ("dnr@", "65536;dns.example", DNR),
            ("dnr@", "1;-dns", DNR),
            ("dnr@", "1;dns.example;", DNR),
            ("dnr@", "1;dns.example;2001:db8::53", DNR),
            ("dnr@", "1;dns.example;10.0.0.1;alpn=dot", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=dot|dot", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=smtp", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=dot;port=0", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=dot;port=1;port=2", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=dot;key5=x", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=h2;dohpath=/dns-query", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=h2;dohpath=https://x/{?dns}", DNR),
            ("dnr@", "1;dns.example;fd00::1;alpn=h2", DOHPATH),
            ("dnr@", "1;dns.example;fd00::1;alpn=dot;dohpath=/q{?dns}", DOHPATH),
            ("dnr@", "1;d;::2|::3|::4|::5|::6|::7|::8|::9|::a;alpn=dot", "must have at most 8 addresses"),
            ("captive_portal", "http://portal", CAPPORT),
            ("captive_portal", "https://", CAPPORT),
        ],
    );
}

#[test]
fn partition_services() {
    let prefix = ("prefix", "2001:db8::/56");
    let rule = "must be [!]VERB[|VERB] /path, like GET|POST /v1/*/**, or * /path";
    let verbs = "is none of *, GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_field_rules(
        "BOOT_NETWORK_PARTITION",
        "p1",
        &[prefix],
        &[
            ("manage_vrf", "true", FLAG),
            ("advertise", "yes", FLAG),
            ("proxy", "Enabled", FLAG),
            ("leak", "", FLAG),
            ("isolate", "1", FLAG),
            ("dhcp6", "on", FLAG),
            ("dhcp6_boot_url@", "http://h/x", BOOT_URL),
            ("dhcp6_boot_url@", "vax|http://h/x", BOOT_URL),
            ("dhcp6_boot_url@", "65536|http://h/x", BOOT_URL),
            ("dhcp6_boot_url@", "default|ftp://h/x", BOOT_SCHEME),
            (
                "dhcp6_boot_url@",
                "default|http://h/{mac}",
                "knows the placeholders {router} and {proxy_port} only",
            ),
            ("dhcp6_boot_url@", "default|http://h/#x", "must not have a fragment"),
            ("dhcp6_boot_param@", "café", "must be 1 to 256 bytes of printable ASCII"),
            ("api_allow@", "/v1/**", rule),
            ("api_allow@", "get /v1", &format!("{rule}; \"get\" {verbs}")),
            ("api_allow@", "GET| /v1", &format!("{rule}; \"\" {verbs}")),
            ("api_allow@", "GET v1", "must have a path that starts with / and has at most 512 bytes"),
            ("api_allow@", "GET /v1/", PATTERN),
            ("api_allow@", "GET /**/v1", PATTERN),
            ("api_allow@", "GET /v1/../x", PATTERN),
            ("api_allow@", "GET /v*", PATTERN),
            ("boot_kernel_url", "tftp://h/k", DOWNLOAD),
            ("boot_kernel_url", "http://h/a b", DOWNLOAD),
            ("boot_kernel_url", "http://h/#x", "must not have a fragment"),
            ("boot_kernel_url", "http://u@h/", "must not carry a user name or password"),
            ("boot_initrd_url@", "http:///i", HOST),
            ("boot_cmdline", "", "must be one line of printable ASCII, at most 2048 bytes"),
            ("boot_cmdline", "café", "must be one line of printable ASCII, at most 2048 bytes"),
            ("boot_template_file", "boot.ipxe", PATH),
            ("machine_config_file", "/etc/", PATH),
        ],
    );
}

#[test]
fn port_fields() {
    assert_field_rules(
        "BOOT_NETWORK_PORT",
        "Ethernet4",
        &[("partition", "p1")],
        &[
            ("partition", "p9", "partition p9 has no row in BOOT_NETWORK_PARTITION"),
            ("partition", "p 1", "must be a partition id ([A-Za-z0-9][A-Za-z0-9._-]*, at most 64 bytes)"),
            ("prefix_offset", "256", "/56 has 256 /64s: 0..255"),
            ("prefix_offset", "x", "must be a whole number, 0..18446744073709551615"),
            ("prefix_offset", "1", "2001:db8:0:1::/64 is already the prefix of Ethernet0"),
            ("admin_status", "enabled", "must be one of up, down"),
        ],
    );
}

/// The message names a field of the port's own row, whichever value is the partition's.
#[test]
fn router_variables_of_a_port_are_judged_with_those_of_its_partition() {
    let partition = [
        ("prefix", "2001:db8::/56"),
        ("max_rtr_adv_interval", "100"),
        ("min_rtr_adv_interval", "75"),
        ("adv_default_lifetime", "600"),
        ("adv_preferred_lifetime", "600"),
    ];
    let cases = [
        (
            "max_rtr_adv_interval",
            "99",
            "must be at least 4/3 of min_rtr_adv_interval (75 in the partition): 100",
        ),
        ("max_rtr_adv_interval", "601", "must be at most adv_default_lifetime (600 in the partition)"),
        ("min_rtr_adv_interval", "76", "must be at most 0.75 of max_rtr_adv_interval (100): 75"),
        ("adv_default_lifetime", "99", "must be 0 or 100 (max_rtr_adv_interval) to 9000"),
        ("adv_valid_lifetime", "599", "must be at least adv_preferred_lifetime (600 in the partition)"),
        ("adv_preferred_lifetime", "3601", "must be at most adv_valid_lifetime (3600)"),
        ("rdnss@", "ff02::1", "must be an IPv6 unicast address"),
        ("prf", "top", "must be one of low, medium, high"),
    ];
    for (field, value, rule) in cases {
        let messages = messages(|config| {
            config.insert("BOOT_NETWORK_PARTITION", "p1", row(&partition));
            config.insert("BOOT_NETWORK_PORT", "Ethernet4", row(&[("partition", "p1"), (field, value)]));
        });
        assert_eq!(messages, [format!("BOOT_NETWORK_PORT|Ethernet4: {field} = {value:?}: {rule}")]);
    }
}
