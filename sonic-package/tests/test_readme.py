"""The README: every block of commands is run by somebody, and what it says of files is so."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import unittest
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent.parent
REPO = HERE.parent
README = (HERE / "README.md").read_text(encoding="utf-8")
# Of what is on a switch and nowhere else: the commands that the README may tell, with their options.
SWITCH = {
    "sonic-package-manager install": {"--from-tarball", "--enable", "--allow-downgrade"},
    "sonic-package-manager uninstall": {"-y", "--keep-config"},
    "config feature state": set(),
    "config save": {"-y"},
    "show feature status": set(),
    "rm": {"-r"},
    "swssloglevel": {"-c", "-l"},
    "grep": set(),
}


def blocks(kind):
    """Lines of the blocks of one kind."""
    texts = re.findall(rf"^```sh {kind}\n(.*?)^```", README, re.M | re.S)
    return [line for text in texts for line in text.splitlines()]


class Readme(unittest.TestCase):
    def test_every_block_has_somebody_who_runs_it(self):
        kinds = re.findall(r"^```(.+)$", README, re.M)
        self.assertEqual(set(kinds), {"sh build", "sh container", "sh switch"})
        # `lab-job` runs them, and would run none if they were named otherwise.
        self.assertIn("^```sh container$", (HERE / "tests/lab-job").read_text())
        self.assertGreater(len(blocks("container")), 8)

    def test_commands_of_the_build_exist_and_take_their_options(self):
        for line in blocks("build"):
            words = [word for word in shlex.split(line) if "=" not in word]
            with self.subTest(line):
                if words[0].startswith("sonic-package/"):
                    usage = subprocess.run([REPO / words[0], "--help"], capture_output=True, text=True, check=True)
                    for option in words[1:]:
                        self.assertIn(option, usage.stdout + " --help")
                else:
                    # Whatever it is, CI runs it.
                    self.assertIn(line, (REPO / "tests/run").read_text().replace(" --locked", ""))

    def test_commands_of_the_switch_are_known(self):
        for line in blocks("switch"):
            words = shlex.split(line.removeprefix("sudo "))
            options = {word for word in words if word.startswith("-")}
            name = next((name for name in SWITCH if " ".join(words).startswith(name + " ")), None)
            if words[1] != "boot-network":
                with self.subTest(line):
                    self.assertIsNotNone(name)
                    self.assertLessEqual(options, SWITCH[name])

    def test_commands_of_the_plugins_work(self):
        sys.path.insert(0, str(HERE / "cli" / "tests"))
        from click.testing import CliRunner
        from rig import AdminApi, Redis, load_plugin, root_of, write
        from test_show import PORTS, STATE, TIMELINE

        redis = Redis()
        self.addCleanup(redis.close)
        write(redis.config, PORTS)
        # What the package manager makes of init-cfg.json.
        initial = json.loads((HERE / "init-cfg.json").read_text())
        write(redis.config, {f"{table}|{key}": row for table, rows in initial.items() for key, row in rows.items()})
        write(redis.state, STATE)
        address = os.path.join(redis.directory, "admin.sock")
        api = AdminApi(address, {"/v1/ports/Ethernet0/timeline": (200, TIMELINE)})
        self.addCleanup(api.close)
        plugins = {name: load_plugin(name) for name in ("show", "config")}
        lines = [line.removeprefix("sudo ") for line in blocks("switch")]
        lines = [line for line in lines if line.split()[1] == "boot-network"]
        self.assertGreater(len(lines), 8)
        with mock.patch.dict(os.environ, {"SWITCH_AGENT_ADMIN_SOCKET": address}):
            for line in lines:
                words = shlex.split(line)
                result = CliRunner().invoke(root_of(plugins[words[0]]), words[1:])
                self.assertEqual(result.exit_code, 0, (line, result.output))

    def test_every_key_and_mount_of_the_manifest_is_explained(self):
        manifest = json.loads((HERE / "manifest.json").read_text())
        for volume in manifest["container"]["volumes"]:
            self.assertIn(f"| `{volume.split(':')[0]}`", README)
            self.assertEqual(" read-only |" in README.split(f"| `{volume.split(':')[0]}`")[1].split("\n")[0],
                             volume.endswith(":ro"), volume)
        self.assertNotIn("environment", manifest["container"])
        for name in ("dependent-of", "delayed", "warm-shutdown", "fast-shutdown"):
            self.assertIn(f"`{name}`", README)
            self.assertTrue(manifest["service"][name])

    def test_links_lead_somewhere(self):
        links = re.findall(r"\]\(([^)]+)\)", README)
        self.assertGreater(len(links), 20)
        for link in links:
            path, _, anchor = link.partition("#")
            target = (HERE / path).resolve() if path else HERE / "README.md"
            with self.subTest(link):
                self.assertTrue(target.exists())
                if anchor:
                    titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                    slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
                    self.assertIn(anchor, slugs)


if __name__ == "__main__":
    unittest.main()
