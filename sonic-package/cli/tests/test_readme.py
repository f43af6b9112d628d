"""The README's `console` blocks, run in order: what they print is what stands there."""

import os
import re
import shlex
import subprocess
import unittest
from unittest import mock

from click.testing import CliRunner

from rig import CLI, AdminApi, Redis, load_plugin, root_of, write
from test_show import NOW, PORTS, STATE, TIMELINE

README = CLI / "README.md"
# What the agent would report of the configuration that the README makes.
REPORT = {
    "BOOT_NETWORK_STATE|global": STATE["BOOT_NETWORK_STATE|global"],
    "BOOT_NETWORK_PARTITION_TABLE|p1": {
        "vrf_name": "VrfBoot-p1",
        "prefix": "2001:db8:0:100::/56",
        "vrf_ready": "true",
        "ports": "2",
        "ports_ready": "1",
        "leak": "applied",
        "isolation": "active",
    },
    "BOOT_NETWORK_PORT_TABLE|Ethernet0": {
        **STATE["BOOT_NETWORK_PORT_TABLE|Ethernet0"],
        "machine_id": "0f9a3b52-3c1e-4a5e-9d0b-6c2f1f6f2a10",
    },
    "BOOT_NETWORK_PORT_TABLE|Ethernet4": {
        "phase": "waiting",
        "partition": "p1",
        "vrf_name": "VrfBoot-p1",
        "prefix": "2001:db8:0:102::/64",
        "since": "1763712000",
        "waiting_on": 'BOOT_NETWORK_PORT|Ethernet4 admin_status = "up"',
    },
}


def commands(text):
    """(command, output) of every console block."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def timeline():
    """The first boot of the fixture, without what is there to be made harmless."""
    [boot] = [boot for boot in TIMELINE["boots"] if boot["number"] == 1]
    return {"port": TIMELINE["port"], "boots": [{**boot, "entries": boot["entries"][:2]}]}


class Readme(unittest.TestCase):
    def test_the_examples_print_what_they_say(self):
        redis = Redis()
        self.addCleanup(redis.close)
        write(redis.config, PORTS)
        write(redis.state, REPORT)
        plugins = {name: load_plugin(name) for name in ("show", "config", "clear")}
        address = os.path.join(redis.directory, "admin.sock")
        path = "/v1/ports/Ethernet0/timeline"
        forgotten = {"port": "Ethernet0", "forgotten": 3}
        api = AdminApi(address, {path: (200, timeline()), "DELETE " + path: (200, forgotten)})
        self.addCleanup(api.close)
        ran = []
        with mock.patch.object(plugins["show"], "now", lambda: NOW), mock.patch.dict(
            os.environ, {"SWITCH_AGENT_ADMIN_SOCKET": address}
        ):
            for command, expected in commands(README.read_text(encoding="utf-8")):
                words = shlex.split(command)
                words = words[1:] if words[0] == "sudo" else words
                if words[0] == "redis-cli":
                    words[1:1] = ["-s", redis.socket, "--no-raw"]
                    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
                else:
                    plugin = plugins[words[0].replace("sonic-", "")]
                    result = CliRunner().invoke(root_of(plugin), words[1:])
                    output = re.sub(r"[ \t]+$", "", result.output, flags=re.M)
                self.assertEqual(output, expected, command)
                ran.append(words[0])
        self.assertGreater(ran.count("show"), 4)
        self.assertGreater(ran.count("config"), 8)
        self.assertIn("sonic-clear", ran)

    def test_links_lead_somewhere(self):
        links = re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
        self.assertGreater(len(links), 4)
        for link in links:
            path, _, anchor = link.partition("#")
            target = CLI / path
            self.assertTrue(target.is_file(), link)
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
                self.assertIn(anchor, slugs, link)

    def test_every_command_is_in_its_tables(self):
        cells = re.findall(r"^\| (`.*?`) [|(]", README.read_text(encoding="utf-8"), re.M)
        named = " ".join(re.findall(r"`([^`]*)`", " ".join(cells)))
        for plugin in ("show", "config", "clear"):
            for path in paths(load_plugin(plugin).boot_network):
                self.assertRegex(named, r"(^| ){}( |$)".format(path))


def paths(group):
    """Names of the commands below a group, as they are typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ("{} {}".format(name, path) for path in paths(command))
        else:
            yield name
