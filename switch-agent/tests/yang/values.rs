//! Fields of the agent's tables with values that hold, and values at and beyond their limits.

/// A field: its name, values that hold in most rows, values at and beyond its limits.
pub(crate) type Field = (&'static str, &'static [&'static str], &'static [&'static str]);

const SWITCH: &[&str] = &["enabled", "disabled"];
const ADMIN: &[&str] = &["up", "down"];
const WORDS: &[&str] = &["", "true", "Enabled", "UP"];

const PATHS: &[&str] = &["/a", "/etc/switch-agent/file.pem", "/a b/c,d", "/...", "/.x"];
const BAD_PATHS: &[&str] = &["", "/", "a", "/a/", "//a", "/a/../b", "/a/.", "/..", "/a\nb"];
const URLS: &[&str] = &[
    "http://h",
    "https://images.example.com/kernel",
    "https://[2001:db8::1]:8443/k?a=${uuid}",
    "http://10.0.0.1:1/a%2Cb",
    "http://h_1.example.?x",
];
const BAD_URLS: &[&str] = &[
    "http://",
    "ftp://h/",
    "http://h/#a",
    "http://h:0/",
    "http://h:65536/",
    "http://h:099/",
    "http://u@h/",
    "http://[::1/",
    "http://[1::2::3]/",
    "http://::1/",
    "http://1.2.3/",
    "http://-h/",
    "http://a..b/",
    "HTTP://h/",
    "http://h/ x",
    "http://h/ü",
];

pub(crate) const GLOBAL: &[Field] = &[
    ("admin_status", ADMIN, WORDS),
    ("switch_id", &["leaf-1", "a:b.c_d"], &["", "a b", "leaf/1"]),
    (
        "control_api_url",
        &["https://api.example.com", "https://[2001:db8::1]:8443/metal/", "https://10.0.0.1/a/b~c"],
        &[
            "http://api.example.com",
            "https://h/?a",
            "https://h//a",
            "https://h/./a",
            "https://h/a/..",
            "https://h:65536",
            "https://h/%61",
            "https://[1::2::3]",
            "https://1.2.3",
        ],
    ),
    ("control_api_dialect", &["generic", "metal-stack-v2"], &["metal-stack-v1", "metal-stack", ""]),
    ("control_api_vrf", &["default", "mgmt", "VrfApi"], &["", "Vrf", "VrfTooLongAName1", "eth0"]),
    ("control_api_ca_file", PATHS, BAD_PATHS),
    ("control_api_token_file", PATHS, BAD_PATHS),
    (
        "control_api_component_type",
        &[
            "pixiecore",
            "metal-core",
            "metal-bmc",
            "metal-image-cache-sync",
            "metal-console",
            "metal-metrics-exporter",
        ],
        &["", "metal-api"],
    ),
    ("machine_token", &["handle", "token"], &["", "none"]),
    ("proxy_port", &["1", "18090", "65535"], &["0", "65536", "-1", "080", ""]),
    ("leak_method", &["auto", "vtysh", "static-route", "frr-mgmt", "render-only"], &["", "bgp"]),
];

/// Fields that need each other, and are there in some rows only.
pub(crate) const METAL_STACK_V1: &[(&str, &str)] = &[
    ("control_api_dialect", "metal-stack-v1"),
    ("control_api_url", "https://api.example.com/metal"),
    ("control_api_client_cert_file", "/c"),
    ("control_api_client_key_file", "/k"),
    ("metal_stack_grpc_address", "api.example.com:50051"),
    ("metal_stack_grpc_ca_file", "/ca"),
    ("metal_stack_grpc_cert_file", "/c"),
    ("metal_stack_grpc_key_file", "/k"),
    ("metal_stack_hmac_file", "/h"),
];

pub(crate) const ROUTER: &[Field] = &[
    ("ra_profile", &["boot", "strict"], &["", "fast"]),
    ("max_rtr_adv_interval", &["10", "600", "1800"], &["4", "3", "1801", "010", "65536"]),
    ("min_rtr_adv_interval", &["3"], &["7", "8", "450", "2", "1351"]),
    ("adv_default_lifetime", &["0", "1800", "9000"], &["9", "10", "9001", "-1"]),
    ("adv_valid_lifetime", &["3600", "4294967295"], &["1799", "1", "0", "4294967296"]),
    ("adv_preferred_lifetime", &["0", "1800"], &["3600", "3601", "4294967295", "4294967296"]),
    ("adv_on_link_flag", SWITCH, WORDS),
    ("adv_autonomous_flag", SWITCH, WORDS),
    ("adv_pd_preferred_flag", SWITCH, WORDS),
    ("adv_link_mtu", &["1280", "9216"], &["1279", "9217"]),
    ("adv_cur_hop_limit", &["0", "255"], &["256", "-0"]),
    ("adv_reachable_time", &["0", "3600000"], &["3600001"]),
    ("adv_retrans_timer", &["0", "4294967295"], &["4294967296"]),
    ("prf", &["low", "medium", "high"], &["", "Medium"]),
    (
        "rdnss@",
        &["2001:db8:f::1", "fe80::1,2001:db8:f::2", "fd00::1.2.3.4", ""],
        &[
            "ff02::fb",
            "::",
            "::1",
            "0:0::1",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
            "10.0.0.1",
            "fd00::1,fd00:0::1",
            "fd00::1,fd00::1",
            "fd00::1,fd00::2,fd00::3,fd00::4,fd00::5,fd00::6,fd00::7,fd00::8,fd00::9",
        ],
    ),
    (
        "dnssl@",
        &["example.com", "a.example,b.example.", "_tcp.a_.example"],
        &[".", "a..b", "-a", "a-", "a,A", "a b"],
    ),
    (
        "dnr@",
        &[
            "1;dns.example",
            "9;dns.example;fd00::1;alpn=doq;port=853,1;b.example",
            "1;a;fd00::1;alpn=dot|h2;dohpath=/q{?dns}",
        ],
        &[
            "0;a",
            "65536;a",
            "1;a,2;A",
            "1;a;fd00::1",
            "1;a;fd00::1;port=853",
            "1;a;fd00::1;alpn=h2",
            "1;a;fd00::1;alpn=dot;dohpath=/q{?dns}",
            "1;a;fd00::1;alpn=dot;alpn=doq",
            "1;a;fd00::1;alpn=dot|dot",
            "1;a;fd00::1;alpn=h3;dohpath=/q",
            "1;a;ff02::1;alpn=dot",
            "1;a;fd00::1;alpn=dot;port=0",
        ],
    ),
    (
        "route_info@",
        &["::/0", "2001:db8:fffe::/48;low;0,fd00::/8", "2001:db8::/48;high;4294967295"],
        &[
            "2001:db8::1/48",
            "2001:db8::/129",
            "2001:db8::/48,2001:db8::/48;low",
            "fe80::/64",
            "ff00::/8;low",
            "2001:db8::/48;low;4294967296",
            "2001:db8::/48;low;01",
            "fd00::/08",
        ],
    ),
    (
        "pref64",
        &["64:ff9b::/96", "2001:db8:fffd::/48"],
        &["64:ff9b::/95", "fe80::/64", "64:ff9b::1/96", "::"],
    ),
    (
        "captive_portal",
        &["https://portal.example/api", "urn:ietf:params:capport:unrestricted"],
        &["http://portal.example", "https://", "https://h/#a", "urn:ietf:params:capport"],
    ),
];

pub(crate) const PARTITION: &[Field] = &[
    (
        "prefix",
        &["2001:db8:0:300::/56", "2001:db8:1::/48", "2001:d00::/40", "2001:db8:0:3::/64"],
        &[
            "2001:db8:0:300::/65",
            "2001:d00::/39",
            "2001:db8:0:301::/56",
            "2001:db8::/48",
            "fe80::/64",
            "ff02::/64",
            "::/64",
            "::ffff:0:0/56",
            "2001:db8:3::",
            "10.0.0.0/8",
        ],
    ),
    ("vrf_name", &["VrfX", "VrfBoot-p3"], &["VrfMine", "VrfBoot-p1", "VrfTooLongAName1", "boot"]),
    ("manage_vrf", SWITCH, WORDS),
    ("advertise", SWITCH, WORDS),
    ("proxy", &["enabled"], &["disabled", "on"]),
    ("leak", SWITCH, WORDS),
    ("isolate", SWITCH, WORDS),
    ("dhcp6", SWITCH, WORDS),
    (
        "dhcp6_boot_url@",
        &[
            "default|http://h/x",
            "x64-uefi-http|http://[{router}]:{proxy_port}/x.efi,ipxe|https://h/${uuid}",
            "0|tftp://[2001:db8::1]/a|b",
        ],
        &[
            "http://h/x",
            "ipxe|ftp://h/x",
            "ipxe|http://h/a,ipxe|http://h/b",
            "toaster|http://h/",
            "65536|http://h/",
            "00|http://h/",
            "16|http://h/,x64-uefi-http|http://h/b",
            "ipxe|http://{router}/",
            "ipxe|http://[{rooter}]/",
            "ipxe|http://h/#a",
            "ipxe|http://h:0/",
        ],
    ),
    ("dhcp6_boot_param@", &["a b,c", "quiet"], &["a,a", "ü"]),
    (
        "service_address@",
        &["2001:db8:f::1", "fd00::1,fd00::2"],
        &[
            "fe80::1",
            "ff05::1",
            "::1",
            "2001:db8::1/128",
            "2001:db8:0:100::9",
            "2001:db8:0:300::9",
            "fd00::1,fd00::1",
        ],
    ),
    (
        "ntp_servers@",
        &["ntp.example,10.0.0.1,2001:db8:f::3", "fe80::1"],
        &[
            "224.0.1.1",
            "0.0.0.0",
            "255.255.255.255",
            "ff05::101",
            "::1",
            "1.2.3",
            "1.2.3.256",
            "10.0.0.01",
            "a b",
        ],
    ),
    ("leak_vrf", &["default", "VrfFabric"], &["mgmt", "VrfMine", "VrfBoot-p1", "VrfBoot-p3", "VrfX", ""]),
    (
        "leak_prefix@",
        &["::/0", "2001:db8:f::/64,fd00::/8", "2001:db8:f::1/128"],
        &[
            "2001:db8:f::1",
            "2001:db8:f::1/64",
            "fe80::/10",
            "ff00::/8",
            "::1/128",
            "2001:db8:0:300::/64",
            "2001:db8::/32",
        ],
    ),
    (
        "api_allow@",
        &["GET /", "GET|HEAD /v1/*,!* /v1/x/**,* /**", "POST /a.b/~c;d=e"],
        &[
            "/v1",
            "get /",
            "GET|| /",
            "CONNECT /",
            "GET v1",
            "GET /a//b",
            "GET /a/",
            "GET /./a",
            "GET /**/a",
            "GET /a?b",
            "GET  /",
        ],
    ),
    ("boot_profile", &["debian"], &["fedora", ""]),
    ("boot_kernel_url", URLS, BAD_URLS),
    ("boot_initrd_url@", &["http://h/a", "http://h/a,https://h/b"], BAD_URLS),
    ("boot_cmdline", &["quiet", "a=b,c d"], &["", "a\nb", "ü"]),
    ("boot_template_file", PATHS, BAD_PATHS),
    (
        "boot_root_path@",
        &["iscsi:h::::iqn.a", "nvme+tcp://h/a,b.c-1:"],
        &["a", ":a", "a b:c", "a:b c", "ü:a"],
    ),
    ("machine_config_file", PATHS, BAD_PATHS),
];

pub(crate) const PORT: &[Field] = &[
    ("partition", &["p1", "p2"], &["p9", "", ".p"]),
    (
        "prefix_offset",
        &["3", "255"],
        &["256", "1", "07", "18446744073709551615", "18446744073709551616", "-1"],
    ),
    ("admin_status", ADMIN, WORDS),
    ("boot_profile", &["debian"], &["fedora", ""]),
    (
        "boot_profile_once",
        &["debian", "debian@1", "debian@a@b,c"],
        &["fedora", "debian@", "@1", "deb@1", "debian@a b", "debian@ü"],
    ),
];

pub(crate) const PROFILE: &[Field] = &[
    ("kernel_url", URLS, BAD_URLS),
    ("initrd_url@", &["http://h/a", "http://h/a,https://h/b"], BAD_URLS),
    ("cmdline", &["quiet", "a=b,c d"], &["", "a\nb", "ü"]),
    ("template_file", PATHS, BAD_PATHS),
    ("root_path@", &["iscsi:h::::iqn.a", "nvme+tcp://h/a,b.c-1:"], &["a", ":a", "a b:c", "a:b c", "ü:a"]),
];

/// Characters that mean something somewhere.
pub(crate) const CHARACTERS: &[&str] = &[
    " ", ",", ";", ":", "/", ".", "|", "@", "%", "#", "?", "{", "}", "[", "]", "*", "!", "-", "_", "=", "~",
    "\"", "<", "&", "'", "\\", "0", "1", "9", "a", "F", "x", "G", "ü", "\u{7f}",
];
