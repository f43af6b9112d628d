//! Where the YANG module and the agent are meant to differ.

/// A difference that is as it should be.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    /// Words that the stricter side says, all of them.
    pub(crate) says: &'static [&'static str],
    /// Why both stay as they are.
    pub(crate) reason: &'static str,
}

/// What the agent rejects and YANG takes.
pub(crate) const AGENT_STRICTER: &[Difference] = &[
    Difference {
        name: "prefixes of partitions overlap",
        says: &[": prefix = ", ": overlaps "],
        reason: "XPath 1.0 has no arithmetic of addresses; YANG sees equal prefixes only",
    },
    Difference {
        name: "leak_prefix overlaps the partition's own prefix",
        says: &[": leak_prefix@ = ", "must not overlap the partition's own prefix"],
        reason: "XPath 1.0 has no arithmetic of addresses",
    },
    Difference {
        name: "service_address inside a boot prefix",
        says: &[": service_address@ = ", "must not be inside "],
        reason: "XPath 1.0 has no arithmetic of addresses",
    },
    Difference {
        name: "host bits behind a prefix",
        says: &["has host bits set"],
        reason: "ietf-inet-types drops host bits; the agent would not know which prefix was meant",
    },
    Difference {
        name: "host bits behind a route",
        says: &[": route_info@ = ", "must be prefix[;low|medium|high"],
        reason: "as with other prefixes, but inside a string",
    },
    Difference {
        name: "VRF of another partition, by its derived name",
        says: &[": vrf_name = ", "is already the VRF of partition"],
        reason: "unique compares what is written, and derived names are not",
    },
    Difference {
        name: "offset beyond the boot prefix",
        says: &[": prefix_offset", "/64s: 0.."],
        reason: "XPath 1.0 knows no powers of two",
    },
    Difference {
        name: "offset of a port that has the /64 by its index",
        says: &[": prefix_offset", "is already the prefix of"],
        reason: "unique compares what is written, and the default offset is not",
    },
    Difference {
        name: "number with a sign or leading zeros",
        says: &["must be a whole number, "],
        reason: "YANG's integers may have them; in a canonical configuration they have not",
    },
    Difference {
        name: "host of a URL",
        says: &["must name a host: "],
        reason: "a pattern that knows IPv4 and IPv6 addresses would be longer than the rest of the module",
    },
    Difference {
        name: "port of a boot file's URL",
        says: &[": dhcp6_boot_url@ = ", "must have a port from 1 to 65535"],
        reason: "the URL is one with placeholders",
    },
    Difference {
        name: "placeholder that is none",
        says: &[": dhcp6_boot_url@ = ", "knows the placeholders {router} and {proxy_port} only"],
        reason: "braces may be part of a URL for iPXE (${net0/mac})",
    },
    Difference {
        name: "architecture that IANA does not know",
        says: &[": dhcp6_boot_url@ = ", "must be client|URL"],
        reason: "the registry grows; the agent's list is the one that counts",
    },
    Difference {
        name: "one client by number and by word",
        says: &[": dhcp6_boot_url@ = ", "has two URLs"],
        reason: "YANG compares the words",
    },
    Difference {
        name: "addresses and alpn of an encrypted resolver",
        says: &[": dnr@ = ", "must be priority;name["],
        reason: "they are parts of a string: YANG sees their characters",
    },
];

/// What YANG rejects and the agent takes.
pub(crate) const YANG_STRICTER: &[Difference] = &[Difference {
    name: "an address spelt in two ways in one list",
    says: &["Duplicate instance of "],
    reason: "libyang compares values, the agent texts; telling an address twice harms nobody",
}];
