"""`config boot-network`: what gets into CONFIG_DB, and what does not."""

import os
from unittest import mock

import click

from rig import PluginTest, ValidatedConfigDBConnector, multi_asic, yang_fields

ROWS = {
    "PORT|Ethernet0": {"alias": "Eth1/1", "index": "1"},
    "PORT|Ethernet4": {"alias": "Eth1/2", "index": "2", "role": "Ext"},
    "PORT|Ethernet-IB0": {"alias": "Recirc", "role": "Inb"},
    "PORTCHANNEL|PortChannel7": {"admin_status": "up"},
    "BOOT_NETWORK_PARTITION|p1": {"prefix": "2001:db8:0:100::/56", "rdnss@": "2001:db8::1,2001:db8::2"},
    "BOOT_NETWORK_PROFILE|debian": {"kernel_url": "https://images.example.com/kernel"},
}
VALIDATION = {"DEVICE_METADATA|localhost": {"yang_config_validation": "enable"}}


class ConfigTest(PluginTest):
    command = "config"

    def setUp(self):
        super().setUp()
        self.configure(ROWS)


class Writes(ConfigTest):
    """Both ways of writing CONFIG_DB lead to the same rows."""

    def test_global(self):
        self.ok("global", "set", "control_api_url", "https://api.example.com")
        self.ok("global", "set", "proxy_port", "18090")
        expected = {"control_api_url": "https://api.example.com", "proxy_port": "18090"}
        self.assertEqual(self.row("BOOT_NETWORK|global"), expected)
        self.ok("global", "unset", "control_api_url")
        self.assertEqual(self.row("BOOT_NETWORK|global"), {"proxy_port": "18090"})
        self.ok("global", "unset", "proxy_port")
        self.assertEqual(self.row("BOOT_NETWORK|global"), {})

    def test_admin_status(self):
        self.ok("global", "set", "proxy_port", "18090")
        self.ok("admin-status", "down")
        self.assertEqual(self.row("BOOT_NETWORK|global"), {"proxy_port": "18090", "admin_status": "down"})
        self.ok("admin-status", "up")
        self.assertEqual(self.row("BOOT_NETWORK|global")["admin_status"], "up")

    def test_partition(self):
        self.ok("partition", "add", "fra-equ01.rack-2", "2001:db8:1::/60")
        key = "BOOT_NETWORK_PARTITION|fra-equ01.rack-2"
        self.assertEqual(self.row(key), {"prefix": "2001:db8:1::/60"})
        self.ok("partition", "set", "fra-equ01.rack-2", "dhcp6", "enabled")
        self.ok("partition", "set", "fra-equ01.rack-2", "leak_prefix", "2001:db8:f::/64", "2001:db8:e::/64")
        lists = {"leak_prefix@": "2001:db8:f::/64,2001:db8:e::/64"}
        self.assertEqual(self.row(key), {"prefix": "2001:db8:1::/60", "dhcp6": "enabled", **lists})
        self.ok("partition", "unset", "fra-equ01.rack-2", "dhcp6")
        self.assertEqual(self.row(key), {"prefix": "2001:db8:1::/60", **lists})
        self.ok("partition", "del", "fra-equ01.rack-2")
        self.assertEqual(self.row(key), {})

    def test_lists_are_leaf_lists_and_stay_so(self):
        key = "BOOT_NETWORK_PARTITION|p1"
        self.ok("partition", "set", "p1", "prf", "high")
        self.assertEqual(self.row(key)["rdnss@"], "2001:db8::1,2001:db8::2", "a list that was not meant")
        self.ok("partition", "set", "p1", "rdnss", "2001:db8::3")
        self.assertEqual(self.row(key)["rdnss@"], "2001:db8::3")
        self.ok("partition", "unset", "p1", "rdnss")
        self.assertEqual(self.row(key), {"prefix": "2001:db8:0:100::/56", "prf": "high"})

    def test_port(self):
        for port in ("Ethernet0", "Ethernet4", "PortChannel7"):
            self.ok("port", "add", port, "p1")
            self.assertEqual(self.row("BOOT_NETWORK_PORT|" + port), {"partition": "p1"})
        self.ok("port", "set", "Ethernet0", "prefix_offset", "15")
        self.ok("port", "set", "Ethernet0", "rdnss", "2001:db8::1", "2001:db8::2")
        self.ok("port", "admin-status", "Ethernet0", "down")
        expected = {"prefix_offset": "15", "rdnss@": "2001:db8::1,2001:db8::2", "admin_status": "down"}
        self.assertEqual(self.row("BOOT_NETWORK_PORT|Ethernet0"), {"partition": "p1", **expected})
        self.ok("port", "unset", "Ethernet0", "prefix_offset")
        self.assertNotIn("prefix_offset", self.row("BOOT_NETWORK_PORT|Ethernet0"))
        for port in ("Ethernet0", "Ethernet4", "PortChannel7"):
            self.ok("port", "del", port)
            self.assertEqual(self.row("BOOT_NETWORK_PORT|" + port), {})

    def test_profile(self):
        urls = ["https://images.example.com/a", "https://images.example.com/b"]
        words = ["--kernel-url", "https://images.example.com/k", "--initrd-url", urls[0], "--initrd-url", urls[1]]
        self.ok("profile", "add", "ubuntu", *words)
        key, kernel = "BOOT_NETWORK_PROFILE|ubuntu", {"kernel_url": "https://images.example.com/k"}
        self.assertEqual(self.row(key), {**kernel, "initrd_url@": ",".join(urls)})
        self.ok("profile", "set", "ubuntu", "cmdline", "console=ttyS0 quiet")
        self.ok("profile", "unset", "ubuntu", "initrd_url")
        self.assertEqual(self.row(key), {**kernel, "cmdline": "console=ttyS0 quiet"})
        self.ok("profile", "del", "ubuntu")
        self.assertEqual(self.row(key), {})

    def test_references_that_hold(self):
        self.ok("partition", "set", "p1", "boot_profile", "debian")
        self.ok("port", "add", "Ethernet0", "p1")
        self.ok("port", "set", "Ethernet0", "boot_profile_once", "debian@2026-11-21")
        self.assertEqual(self.row("BOOT_NETWORK_PORT|Ethernet0")["boot_profile_once"], "debian@2026-11-21")

    def test_the_last_row_of_a_table_may_go(self):
        self.ok("partition", "del", "p1")
        self.ok("profile", "del", "debian")
        self.assertEqual(self.redis.config.keys("BOOT_NETWORK_P*"), [])


class ValidatedWrites(Writes):
    """The same with yang_config_validation enabled."""

    def setUp(self):
        super().setUp()
        self.configure(VALIDATION)

    def test_what_validation_says_is_passed_on(self):
        with mock.patch("config.validated_config_db_connector.LEAF_LISTS", set()):
            message = self.refused("partition", "set", "p1", "rdnss", "2001:db8::1")
        self.assertIn("BOOT_NETWORK_PARTITION|p1: not written: Data Loading Failed: rdnss", message)

    def test_a_refusal_that_is_only_logged_is_told(self):
        with mock.patch.object(ValidatedConfigDBConnector, "refused", {"BOOT_NETWORK_PARTITION"}):
            message = self.refused("partition", "del", "p1")
        self.assertIn("BOOT_NETWORK_PARTITION|p1: not written: refused by the validation", message)


class OldRelease(Writes):
    """The same on releases whose sonic-utilities validate nothing."""

    def setUp(self):
        super().setUp()
        self.configure(VALIDATION)
        patch = mock.patch.object(self.plugin, "ValidatedConfigDBConnector", None)
        patch.start()
        self.addCleanup(patch.stop)


class Refusals(ConfigTest):
    def assert_refused(self, words, *parts):
        message = self.refused(*words)
        for part in parts:
            self.assertIn(part, message)

    def test_unknown_fields(self):
        row = "Error: BOOT_NETWORK_PARTITION|p1: rdns: no such field, did you mean rdnss?"
        self.assert_refused(["partition", "set", "p1", "rdns", "2001:db8::1"], row)
        self.assert_refused(["partition", "unset", "p1", "rdns"], row)
        self.assert_refused(["global", "set", "proxyport", "1"], "BOOT_NETWORK|global: proxyport: ", "proxy_port")
        self.assert_refused(["profile", "set", "debian", "vrf_name", "Vrf1"], "BOOT_NETWORK_PROFILE|debian: vrf_name: ")
        self.ok("port", "add", "Ethernet0", "p1")
        self.assert_refused(["port", "set", "Ethernet0", "leak_vrf", "x"], "BOOT_NETWORK_PORT|Ethernet0: leak_vrf: ")

    def test_rows_that_are_not_there(self):
        for table, words in {
            "BOOT_NETWORK_PARTITION|p9": ["partition", "p9", "prf", "low"],
            "BOOT_NETWORK_PORT|Ethernet0": ["port", "Ethernet0", "prf", "low"],
            "BOOT_NETWORK_PROFILE|none": ["profile", "none", "cmdline", "quiet"],
        }.items():
            kind, key, field, value = words
            self.assert_refused([kind, "set", key, field, value], table + ": does not exist, add it first")
            self.assert_refused([kind, "unset", key, field], table + ": does not exist")
            self.assert_refused([kind, "del", key], table + ": does not exist, there is nothing to delete")
        self.assert_refused(["port", "admin-status", "Ethernet0", "up"], "BOOT_NETWORK_PORT|Ethernet0: does not exist")

    def test_rows_that_are_there(self):
        self.ok("port", "add", "Ethernet0", "p1")
        self.assert_refused(["port", "add", "Ethernet0", "p1"], "BOOT_NETWORK_PORT|Ethernet0: exists already")
        self.assert_refused(["partition", "add", "p1", "2001:db8::/56"], "BOOT_NETWORK_PARTITION|p1: exists already")
        words = ["profile", "add", "debian", "--kernel-url", "https://x.example.com/k"]
        self.assert_refused(words, "BOOT_NETWORK_PROFILE|debian: exists already")

    def test_ports_that_are_none(self):
        row = "BOOT_NETWORK_PORT|Ethernet96: no such port in PORT or PORTCHANNEL"
        self.assert_refused(["port", "add", "Ethernet96", "p1"], row)
        self.assert_refused(["port", "add", "Ethernet-IB0", "p1"], "has the role Inb")

    def test_references_to_nothing(self):
        where = "BOOT_NETWORK_PORT|Ethernet0: partition: BOOT_NETWORK_PARTITION|p9 does not exist"
        self.assert_refused(["port", "add", "Ethernet0", "p9"], where)
        self.ok("port", "add", "Ethernet0", "p1")
        self.assert_refused(["port", "set", "Ethernet0", "partition", "p9"], where)
        for field, value in {"boot_profile": "none", "boot_profile_once": "none@1"}.items():
            where = "BOOT_NETWORK_PORT|Ethernet0: {}: BOOT_NETWORK_PROFILE|none does not exist".format(field)
            self.assert_refused(["port", "set", "Ethernet0", field, value], where)
        where = "BOOT_NETWORK_PARTITION|p1: boot_profile: BOOT_NETWORK_PROFILE|none does not exist"
        self.assert_refused(["partition", "set", "p1", "boot_profile", "none"], where)

    def test_rows_in_use(self):
        for port in ("PortChannel7", "Ethernet4", "Ethernet0"):
            self.ok("port", "add", port, "p1")
        users = ["BOOT_NETWORK_PORT|" + port for port in ("Ethernet0", "Ethernet4", "PortChannel7")]
        expected = "BOOT_NETWORK_PARTITION|p1: is used by " + ", ".join(users) + "\n"
        self.assert_refused(["partition", "del", "p1"], expected)
        self.ok("partition", "set", "p1", "boot_profile", "debian")
        self.ok("port", "set", "Ethernet4", "boot_profile_once", "debian@1")
        expected = "debian: is used by BOOT_NETWORK_PARTITION|p1, BOOT_NETWORK_PORT|Ethernet4\n"
        self.assert_refused(["profile", "del", "debian"], expected)

    def test_required_fields_stay(self):
        self.assert_refused(["partition", "unset", "p1", "prefix"], "BOOT_NETWORK_PARTITION|p1: prefix: is required")
        self.ok("port", "add", "Ethernet0", "p1")
        self.assert_refused(["port", "unset", "Ethernet0", "partition"], "|Ethernet0: partition: is required")

    def test_fields_that_are_not_set(self):
        self.assert_refused(["partition", "unset", "p1", "prf"], "BOOT_NETWORK_PARTITION|p1: prf: is not set")
        self.assert_refused(["global", "unset", "proxy_port"], "BOOT_NETWORK|global: proxy_port: is not set")

    def test_profiles_that_boot_nothing(self):
        words = "boots nothing without one of kernel_url, template_file, root_path"
        self.assert_refused(["profile", "add", "empty"], "BOOT_NETWORK_PROFILE|empty: " + words)
        self.assert_refused(["profile", "unset", "debian", "kernel_url"], "BOOT_NETWORK_PROFILE|debian: " + words)

    def test_values_that_cannot_be(self):
        self.assert_refused(["partition", "set", "p1", "prf", "low", "high"], "|p1: prf: takes one value, not 2")
        self.assert_refused(["partition", "set", "p1", "prf", ""], "|p1: prf: an empty value")
        words = ["partition", "set", "p1", "rdnss", "2001:db8::1,2001:db8::2"]
        self.assert_refused(words, "BOOT_NETWORK_PARTITION|p1: rdnss: no item has a comma")
        self.assert_refused(["partition", "set", "p1", "rdnss"], "Missing argument")
        self.assert_refused(["admin-status", "off"], "Invalid value")
        for name in ("a|b", "a/b", "a b", ""):
            self.assert_refused(["partition", "add", name, "2001:db8::/56"], "not a name")
            self.assert_refused(["profile", "add", name, "--kernel-url", "http://x.example.com/k"], "not a name")

    def test_multi_asic_switches_and_namespaces(self):
        self.assert_refused(["-n", "asic0", "admin-status", "up"], "-n/--namespace is for multi-ASIC switches")
        with mock.patch.object(multi_asic, "asics", 2):
            self.assert_refused(["admin-status", "up"], "not available on multi-ASIC switches")


class Names(ConfigTest):
    def test_aliases_where_the_operator_uses_them(self):
        with mock.patch.dict(os.environ, {"SONIC_CLI_IFACE_MODE": "alias"}):
            self.ok("port", "add", "Eth1/1", "p1")
            self.ok("port", "set", "Eth1/1", "prefix_offset", "3")
            self.ok("port", "admin-status", "Eth1/1", "down")
            self.ok("port", "unset", "Eth1/1", "prefix_offset")
            expected = {"partition": "p1", "admin_status": "down"}
            self.assertEqual(self.row("BOOT_NETWORK_PORT|Ethernet0"), expected)
            self.ok("port", "del", "Eth1/1")
        self.assertEqual(self.redis.config.keys("BOOT_NETWORK_PORT|*"), [])
        self.assertIn("no such port", self.refused("port", "add", "Eth1/1", "p1"))

    def test_a_port_without_alias_keeps_its_name(self):
        self.configure({"PORT|Ethernet8": {"index": "3"}})
        with mock.patch.dict(os.environ, {"SONIC_CLI_IFACE_MODE": "alias"}):
            self.ok("port", "add", "Ethernet8", "p1")
        self.assertEqual(self.row("BOOT_NETWORK_PORT|Ethernet8"), {"partition": "p1"})

    def test_the_fields_are_those_of_the_yang_module(self):
        for table, (leaves, lists) in yang_fields().items():
            keys = {"BOOT_NETWORK_PARTITION": {"id"}, "BOOT_NETWORK_PORT": {"port"}, "BOOT_NETWORK_PROFILE": {"name"}}
            self.assertEqual(set(self.plugin.LEAVES[table]), leaves - keys.get(table, set()), table)
            self.assertEqual(set(self.plugin.LEAF_LISTS[table]), lists, table)
        self.assertEqual(set(yang_fields()), set(self.plugin.LEAVES))

    def test_a_name_that_is_taken_stays_what_it_is(self):
        taken = click.Group()
        taken.add_command(click.Command("boot-network"))
        with self.assertRaisesRegex(Exception, "boot-network already exists"):
            self.plugin.register(taken)
