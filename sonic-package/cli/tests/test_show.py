"""`show boot-network` over what SONiC and the agent have in the databases."""

import json
import os
import re
from unittest import mock

import click

from rig import REPOSITORY, AdminApi, PluginTest, multi_asic, root_of

NOW = 1763712042
PORTS = {
    "PORT|Ethernet0": {"alias": "Eth1/1", "index": "1"},
    "PORT|Ethernet4": {"alias": "Eth1/2", "index": "2"},
    "PORT|Ethernet40": {"alias": "Eth1/11", "index": "11"},
}
CONFIG = {
    **PORTS,
    "BOOT_NETWORK_PARTITION|p1": {"prefix": "2001:db8:0:100::/56", "rdnss@": "2001:db8::1,2001:db8::2"},
    "BOOT_NETWORK_PORT|Ethernet40": {"partition": "p1"},
    "BOOT_NETWORK_PORT|Ethernet4": {"partition": "p1", "admin_status": "down"},
    "BOOT_NETWORK_PORT|Ethernet0": {"partition": "p1"},
}
GLOBAL = {
    "version": "0.1.0",
    "status": "converging",
    "last_pass": str(NOW - 102),
    "config_generation": "7",
    "router_discovery": "packet+drop-rule",
}
STATE = {
    "BOOT_NETWORK_STATE|global": GLOBAL,
    "BOOT_NETWORK_PARTITION_TABLE|p1": {
        "vrf_name": "VrfBoot-p1",
        "prefix": "2001:db8:0:100::/56",
        "vrf_ready": "true",
        "ports": "2",
        "ports_ready": "1",
        "isolation": "pending",
        "isolation_detail": "ACL_TABLE|BOOTNET_IPV4 is Pending creation",
        "leak": "pending",
        "leak_detail": "no BGP router",
    },
    "BOOT_NETWORK_PORT_TABLE|Ethernet0": {
        "phase": "ready",
        "partition": "p1",
        "vrf_name": "VrfBoot-p1",
        "prefix": "2001:db8:0:101::/64",
        "since": "1763712000",
        "mac": "52:54:00:00:00:01",
        "address": "2001:db8:0:101:5054:ff:fe00:1",
        "machine_id": "1e5",
    },
    "BOOT_NETWORK_PORT_TABLE|Ethernet40": {
        "phase": "waiting",
        "partition": "p1",
        "since": "1763712000",
        "waiting_on": "STATE_DB PORT_TABLE|Ethernet40",
    },
}
TIMELINE = {
    "port": "Ethernet0",
    "boots": [
        {
            "number": number,
            "started_at": "2025-11-21T08:00:0{}.000Z".format(number),
            "ended": False,
            "dropped": 0,
            "entries": [
                {
                    "stage": stage,
                    "at": "2025-11-21T08:00:00.000Z",
                    "unix_ms": 1763712000000 + after,
                    "since_start_ms": after,
                    "since_previous_ms": step,
                    "count": count,
                    "detail": detail,
                }
                for stage, after, step, count, detail in [
                    ("carrier", 0, 0, 1, None),
                    ("first-rs", 1042, 1042, 3, "52:54:00:00:00:01"),
                    ("event:installing", 61042, 60000, 1, "disk\x1b[2J"),
                ]
            ],
        }
        for number in (2, 1)
    ],
}


def cells(output, first):
    """Cells of the table row that begins with `first`."""
    line = next(line for line in output.splitlines() if line.startswith(first + " "))
    return re.split(r"\s{2,}", line.strip())


class ShowTest(PluginTest):
    def setUp(self):
        super().setUp()
        patch = mock.patch.object(self.plugin, "now", lambda: NOW)
        patch.start()
        self.addCleanup(patch.stop)


class Tables(ShowTest):
    def test_ports_are_in_natural_order_with_state_and_configuration(self):
        self.configure(CONFIG)
        self.report(STATE)
        output = self.ok("ports")
        self.assertEqual(re.findall(r"^Ethernet\d+", output, re.M), ["Ethernet0", "Ethernet4", "Ethernet40"])
        expected = ["Ethernet0", "p1", "up", "ready", "VrfBoot-p1", "2001:db8:0:101::/64", "52:54:00:00:00:01"]
        self.assertEqual(cells(output, "Ethernet0"), expected + ["2025-11-21T08:00:00Z"])
        self.assertEqual(cells(output, "Ethernet4"), ["Ethernet4", "p1", "down", "not reported by the agent"])
        self.assertEqual(cells(output, "Ethernet40")[-1], "waits for STATE_DB PORT_TABLE|Ethernet40")

    def test_an_error_counts_more_than_what_is_waited_for(self):
        fields = {"phase": "failed", "waiting_on": "the VRF", "error": "address in use"}
        self.report({"BOOT_NETWORK_PORT_TABLE|Ethernet0": fields})
        [port] = self.json("ports")["ports"]
        self.assertEqual(port["remark"], "address in use; not in CONFIG_DB")
        self.assertFalse(port["configured"])

    def test_json_of_ports_has_the_fields_of_state_db(self):
        self.configure(CONFIG)
        self.report(STATE)
        answer = self.json("ports")
        self.assertEqual(answer["agent"], "running")
        self.assertEqual([port["port"] for port in answer["ports"]], ["Ethernet0", "Ethernet4", "Ethernet40"])
        state = STATE["BOOT_NETWORK_PORT_TABLE|Ethernet0"]
        self.assertEqual(answer["ports"][0], {
            **state, "port": "Ethernet0", "configured": True, "admin_status": "up", "remark": "",
        })
        self.assertEqual(answer["ports"][1]["partition"], "p1")

    def test_a_row_without_fields_has_none(self):
        self.report({"BOOT_NETWORK_PORT_TABLE|Ethernet0": {}})
        self.assertNotIn("NULL", self.json("ports")["ports"][0])

    def test_partitions(self):
        self.configure(CONFIG)
        self.configure({"BOOT_NETWORK_PARTITION|p10": {"prefix": "2001:db8:1::/60"},
                        "BOOT_NETWORK_PARTITION|p2": {"prefix": "2001:db8:2::/60"}})
        self.report(STATE)
        output = self.ok("partitions")
        expected = ["p1", "VrfBoot-p1", "2001:db8:0:100::/56", "yes", "1/2", "pending: no BGP router", "pending: ACL_TABLE|BOOTNET_IPV4 is Pending creation"]
        self.assertEqual(cells(output, "p1"), expected)
        self.assertEqual(cells(output, "p2"), ["p2", "2001:db8:2::/60", "not reported by the agent"])
        self.assertEqual([p["partition"] for p in self.json("partitions")["partitions"]], ["p1", "p2", "p10"])

    def test_machines_as_they_are(self):
        self.configure(CONFIG)
        self.report(STATE)
        output = self.ok("machines")
        expected = ["52:54:00:00:00:01", "Ethernet0", "p1", "2001:db8:0:101:5054:ff:fe00:1", "1e5"]
        self.assertEqual(cells(output, "52:54:00:00:00:01"), expected)
        self.assertEqual(len(self.json("machines")["machines"]), 1)

    def test_control_characters_never_reach_the_terminal(self):
        self.report({"BOOT_NETWORK_STATE|global": GLOBAL})
        self.report({"BOOT_NETWORK_PORT_TABLE|Ethernet0": {"phase": "failed", "error": "a\x1b[31mb\nc"}})
        self.assertIn("a?[31mb?c", self.ok("ports"))

    def test_aliases_where_the_operator_wants_them(self):
        self.configure(CONFIG)
        self.report(STATE)
        with mock.patch.dict(os.environ, {"SONIC_CLI_IFACE_MODE": "alias"}):
            for command in ("ports", "machines"):
                output = self.ok(command)
                self.assertIn("Eth1/1 ", output)
                self.assertNotIn("Ethernet0 ", output)
            # JSON is for programs, and keeps SONiC's names.
            self.assertEqual(self.json("ports")["ports"][0]["port"], "Ethernet0")

    def test_a_port_without_alias_keeps_its_name(self):
        self.configure({"PORT|Ethernet8": {"index": "3"}, "BOOT_NETWORK_PORT|Ethernet8": {"partition": "p1"}})
        with mock.patch.dict(os.environ, {"SONIC_CLI_IFACE_MODE": "alias"}):
            self.assertIn("Ethernet8", self.ok("ports"))

    def test_empty_tables_are_told_in_words(self):
        self.report({"BOOT_NETWORK_STATE|global": GLOBAL})
        self.assertEqual(self.ok("ports"), "No boot ports: BOOT_NETWORK_PORT of CONFIG_DB is empty.\n")
        self.assertEqual(self.ok("partitions"), "No partitions: BOOT_NETWORK_PARTITION of CONFIG_DB is empty.\n")
        self.assertEqual(self.ok("machines"), "No machine on any boot port.\n")
        for table in ("ports", "partitions", "machines"):
            self.assertEqual(self.json(table), {"agent": "running", table: []})

    def test_every_field_read_is_one_the_agent_writes(self):
        readme = (REPOSITORY / "switch-agent/README.md").read_text(encoding="utf-8")
        for key, fields in STATE.items():
            table = key.split("|")[0]
            row = next(line for line in readme.splitlines() if line.startswith("| `{}\\|".format(table)))
            # router_discovery stands below the table.
            documented = set(re.findall(r"`(\w+)`", row)) | set(re.findall(r"^`(\w+)` is ", readme, re.M))
            self.assertLessEqual(set(fields), documented, table)


class Status(ShowTest):
    def test_a_running_agent(self):
        self.configure(CONFIG)
        self.report(STATE)
        output = self.ok("status")
        self.assertRegex(output, r"Agent: +running\n")
        self.assertRegex(output, r"Verdict: +converging\n")
        self.assertRegex(output, r"Ports: +3 \(ready 1, unreported 1, waiting 1\)\n")
        self.assertRegex(output, r"Last pass: +2025-11-21T07:59:00Z\n")
        self.assertNotIn("Rejected", output)
        self.assertNotIn("Warnings", output)
        self.assertEqual(self.ok(), output, "without a subcommand")
        self.assertEqual(self.json(), self.json("status"))
        self.assertEqual(self.json("status")["ports"], {"ready": 1, "unreported": 1, "waiting": 1})

    def test_rejected_rows_one_by_one(self):
        messages = ["BOOT_NETWORK_PORT|Ethernet0: partition: a", "BOOT_NETWORK|global: proxy_port: b"]
        self.report({"BOOT_NETWORK_STATE|global": {**GLOBAL, "rejected": "\n".join(messages)}})
        self.assertTrue(self.ok("status").endswith("Rejected rows:\n  {}\n  {}\n".format(*messages)))
        self.assertEqual(self.json("status")["rejected"], messages)

    def test_warnings_before_rejected_rows(self):
        rows = {"warnings": "BOOT_NETWORK_PARTITION|p1: service_address@: a\nb\x1b[2J", "rejected": "c"}
        self.report({"BOOT_NETWORK_STATE|global": {**GLOBAL, **rows}})
        output = self.ok("status")
        self.assertIn("\n\nWarnings:\n  BOOT_NETWORK_PARTITION|p1: service_address@: a\n  b", output)
        self.assertTrue(output.endswith("\n\nRejected rows:\n  c\n"), output)
        self.assertNotIn("\x1b", output)
        self.assertEqual(len(self.json("status")["warnings"]), 2)

    def test_why_the_agent_reports_nothing_of_a_row(self):
        self.configure(CONFIG)
        message = 'BOOT_NETWORK_PARTITION|p1: prefix = "x": must be an IPv6 prefix'
        self.report({"BOOT_NETWORK_STATE|global": {**GLOBAL, "rejected": message}})
        [partition] = self.json("partitions")["partitions"]
        self.assertEqual(partition["remark"], 'rejected: prefix = "x": must be an IPv6 prefix')
        self.assertEqual(self.json("ports")["ports"][0]["remark"], "not reported by the agent")
        self.configure({"BOOT_NETWORK|global": {"admin_status": "down"}})
        self.assertEqual(self.json("ports")["ports"][0]["remark"], "BOOT_NETWORK|global has admin_status down")

    def test_no_agent(self):
        self.configure(CONFIG)
        for command in ("status", "ports", "partitions", "machines"):
            self.assertTrue(self.ok(command).startswith("The agent is not running: STATE_DB has no "), command)
            self.assertEqual(self.json(command)["agent"], "absent", command)

    def test_an_agent_that_went_silent(self):
        self.configure(CONFIG)
        self.report(STATE)
        self.report({"BOOT_NETWORK_STATE|global": {**GLOBAL, "last_pass": str(NOW - 181)}})
        for command in ("status", "ports", "partitions", "machines"):
            self.assertIn("has not reported since 2025-11-21T07:57:41Z", self.ok(command), command)
            self.assertEqual(self.json(command)["agent"], "stale", command)

    def test_what_the_operator_switched_off(self):
        self.configure({"BOOT_NETWORK|global": {"admin_status": "down"}})
        self.assertRegex(self.ok("status"), r"Admin status: +down\n")
        self.assertEqual(self.json("status")["admin_status"], "down")


class Timeline(ShowTest):
    PATH = "/v1/ports/Ethernet0/timeline"

    def serve(self, address, answers):
        api = AdminApi(address, answers)
        self.addCleanup(api.close)
        return api

    def on_socket(self, answers):
        return self.serve(os.environ["SWITCH_AGENT_ADMIN_SOCKET"], answers)

    def test_the_latest_boot_by_the_unix_socket(self):
        self.on_socket({self.PATH: (200, TIMELINE)})
        output = self.ok("timeline", "Ethernet0")
        self.assertTrue(output.startswith("Ethernet0, boot 2, started 2025-11-21T08:00:02.000Z\n"), output)
        self.assertEqual(cells(output, "first-rs"), ["first-rs", "1.042 s", "1.042 s", "3", "52:54:00:00:00:01"])
        self.assertNotIn("boot 1", output)
        self.assertIn("boot 1", self.ok("timeline", "Ethernet0", "--all"))
        self.assertIn("disk?[2J", output)
        self.assertEqual(self.json("timeline", "Ethernet0"), TIMELINE)

    def test_the_loopback_address_where_no_socket_shows(self):
        api = self.serve(("127.0.0.1", 0), {self.PATH: (200, TIMELINE)})
        listen = "127.0.0.1:{}".format(api.server.server_address[1])
        with mock.patch.dict(os.environ, {"SWITCH_AGENT_ADMIN_LISTEN": listen}):
            self.assertIn("boot 2", self.ok("timeline", "Ethernet0"))

    def test_an_alias_is_asked_for_as_it_is_and_shown_where_wanted(self):
        self.configure(PORTS)
        self.on_socket({"/v1/ports/Eth1%2F1/timeline": (200, TIMELINE)})
        with mock.patch.dict(os.environ, {"SONIC_CLI_IFACE_MODE": "alias"}):
            self.assertTrue(self.ok("timeline", "Eth1/1").startswith("Eth1/1, boot 2"))

    def test_a_port_on_which_nothing_booted(self):
        self.on_socket({self.PATH: (200, {"port": "Ethernet0", "boots": []})})
        expected = "No machine booted on Ethernet0 since the agent started.\n"
        self.assertEqual(self.ok("timeline", "Ethernet0"), expected)

    def test_the_agents_own_words_about_a_port_it_does_not_know(self):
        self.on_socket({})
        self.assertEqual(self.refused("timeline", "Ethernet9"), "Error: no boot port of that name\n")

    def test_no_agent(self):
        message = self.refused("timeline", "Ethernet0")
        self.assertIn("the agent is not running, or may not be asked", message)
        self.assertIn("admin.sock: No such file or directory", message)

    def test_an_answer_that_is_none(self):
        self.on_socket({self.PATH: (200, b"<html>"), "/v1/ports/long/timeline": (200, b"[" + b"1," * 2 ** 21 + b"1]")})
        self.assertIn("no answer to be used", self.refused("timeline", "Ethernet0"))
        self.assertIn("longer than 4194304 bytes", self.refused("timeline", "long"))

    def test_the_answers_here_are_of_the_agents_schema(self):
        document = REPOSITORY / "switch-agent/src/http/openapi.json"
        with open(document, encoding="utf-8") as file:
            schema = json.load(file)["components"]["schemas"]["Timeline"]
        self.assertEqual(set(TIMELINE), set(schema["required"]))
        boot = schema["properties"]["boots"]["items"]
        self.assertEqual(set(TIMELINE["boots"][0]), set(boot["required"]))
        entry = boot["properties"]["entries"]["items"]
        self.assertEqual(set(TIMELINE["boots"][0]["entries"][0]), set(entry["required"]))


class Plugin(ShowTest):
    def test_json_before_a_subcommand_is_no_table(self):
        self.assertIn("--json goes behind the subcommand", self.refused("--json", "ports"))

    def test_commands_may_be_abbreviated(self):
        self.configure(CONFIG)
        self.assertEqual(self.ok("po"), self.ok("ports"))

    def test_multi_asic_switches_are_refused(self):
        with mock.patch.object(multi_asic, "asics", 2):
            for words in ([], ["ports"], ["-n", "asic0", "ports"]):
                self.assertEqual(
                    self.refused(*words), "Error: boot-network is not available on multi-ASIC switches\n"
                )

    def test_namespaces_are_refused(self):
        self.assertIn("-n/--namespace is for multi-ASIC switches", self.refused("-n", "asic0", "ports"))

    def test_a_name_that_is_taken_stays_what_it_is(self):
        taken = click.Group()
        taken.add_command(click.Command("boot-network"))
        with self.assertRaisesRegex(Exception, "boot-network already exists"):
            self.plugin.register(taken)
        self.assertIs(root_of(self.plugin).commands["boot-network"], self.plugin.boot_network)
