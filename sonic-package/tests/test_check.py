"""`check` against packages that hold, and such that break one rule each."""

import copy
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent.parent
REPO = HERE.parent


def load(name):
    """A script without .py as a module."""
    path = str(HERE / name)
    loader = importlib.machinery.SourceFileLoader(f"package_{name}", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
CHECK = load("check")

MANIFEST = json.loads((HERE / "manifest.json").read_text())
MANIFEST["package"]["version"] = "0.1.0"
MANIFEST["package"]["init-cfg"] = json.loads((HERE / "init-cfg.json").read_text())
YANG = (HERE / "yang" / "sonic-boot-network.yang").read_text()
PLUGIN = "usr/share/switch-agent/cli/{0}/boot_network.py"
FILES = {
    "usr/bin/switch-agent": (0o755, b"\x7fELF"),
    PLUGIN.format("show"): (0o644, (HERE / "cli/show/boot_network.py").read_bytes()),
    PLUGIN.format("config"): (0o644, (HERE / "cli/config/boot_network.py").read_bytes()),
    PLUGIN.format("clear"): (0o644, (HERE / "cli/clear/boot_network.py").read_bytes()),
}


def add(tar, name, data, mode=0o644):
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def faults(manifest=MANIFEST, labels=None, config=None, files=None):
    """What `check` says of an image in the form of `docker save`."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    if labels is None:
        labels = {"com.azure.sonic.manifest": text, "com.azure.sonic.yang-module": YANG}
    config = {"Entrypoint": ["/usr/bin/switch-agent"], "Cmd": ["run"], "Env": ["PATH=/usr/bin"],
              "Labels": labels} if config is None else {"Labels": labels, **config}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, (mode, data) in (FILES if files is None else files).items():
            add(tar, name, data, mode)
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        with tarfile.open(file.name, mode="w:gz") as tar:
            add(tar, "1.json", json.dumps({"config": config}).encode())
            add(tar, "1/layer.tar", layer.getvalue())
            add(tar, "manifest.json", json.dumps([{"Config": "1.json", "Layers": ["1/layer.tar"]}]).encode())
        return CHECK.check(file.name)[0]


def changed(path, value):
    """The manifest with another value at `path`; `...` takes the key away."""
    manifest = copy.deepcopy(MANIFEST)
    *parents, last = path.split("/")
    node = manifest
    for name in parents:
        node = node[int(name) if isinstance(node, list) else name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return manifest


class Holds(unittest.TestCase):
    def test_the_package(self):
        self.assertEqual(faults(), [])

    def test_the_forms_that_the_package_manager_takes_besides(self):
        for path, value in {
            "service/syslog": {"support-rate-limit": True},
            "service/stop-time": "30",
            "package/version": "1.2.3-rc.1+build.5",
            "package/base-os": {"sonic-build": ">=1.0.0"},
            "package/depends": ["database", "swss>=1.0.0,<2.0.0", {"name": "syncd", "version": "^1.0.0"}],
            "container/mounts": [{"type": "bind", "source": "/a", "target": "/b"}],
            "container/tmpfs": ["/tmp"],
            "cli/show": "/" + PLUGIN.format("show"),
        }.items():
            with self.subTest(path):
                self.assertEqual(faults(changed(path, value)), [])
        several = {"com.azure.sonic.manifest": json.dumps(MANIFEST), "com.azure.sonic.yang-module.a": YANG}
        self.assertEqual(faults(labels=several), [])


class Broken(unittest.TestCase):
    def expect(self, found, words):
        self.assertTrue(any(words in fault for fault in found), f"{words!r} is not in {found}")

    def test_keys_that_the_package_manager_would_drop(self):
        for path in ["entrypoint", "package/maintainer", "service/restart", "service/warm-shutdown/with",
                     "service/syslog", "container/capabilities", "container/memory", "processes/0/critical",
                     "cli/sonic-clear"]:
            value = {"rate-limit": True} if path == "service/syslog" else []
            with self.subTest(path):
                self.expect(faults(changed(path, value)), "no such key")

    def test_values_of_another_type_or_form(self):
        for path, value in {
            "version": "2.0.0",
            "package/version": "1.0",
            "package/name": "Switch Agent",
            "package/depends": "database^1.0.0",
            "package/depends/0": "database^one",
            "package/debug-dump": 'switch-agent dump "$HOME"',
            "package/init-cfg": {"BOOT_NETWORK": "up"},
            "service/delayed": "true",
            "service/requires": "config-setup",
            "service/after": [1],
            "service/stop-time": 10,
            "service/dependent-of": None,
            "container/privileged": 0,
            "container/volumes/0": "etc/sonic",
            "container/volumes/1": "/etc/localtime:/etc/localtime:readonly",
            "container/environment": {"LEVEL": "a b"},
            "container/mounts": [{"type": "bind", "source": "/a"}],
            "processes/0/reconciles": "no",
            "cli/show": [""],
            "cli/mandatory": 1,
        }.items():
            manifest = copy.deepcopy(MANIFEST)
            *parents, last = path.split("/")
            node = manifest
            for name in parents:
                node = node[int(name) if isinstance(node, list) else name]
            node[int(last) if isinstance(node, list) else last] = value
            with self.subTest(path):
                self.expect(faults(manifest), "manifest." + re.sub(r"/(\d+)", r"[\1]", path).replace("/", "."))

    def test_what_is_required(self):
        for path in ["package/version", "package/name", "service/name", "processes/0/name", "service"]:
            with self.subTest(path):
                self.expect(faults(changed(path, ...)), "is required")

    def test_json_that_is_none_or_ambiguous(self):
        self.expect(faults('{"version": '), "is no JSON")
        self.expect(faults(json.dumps(MANIFEST)[:-1] + ', "cli": {}}'), "cli is there twice")

    def test_labels(self):
        text = json.dumps(MANIFEST)
        module = "com.azure.sonic.yang-module"
        self.expect(faults(labels={module: YANG}), "no such label")
        self.expect(faults(labels={"com.azure.sonic.manifest": text, module: YANG, f"{module}.a": YANG}),
                    "only one form is read")
        self.expect(faults(labels={"com.azure.sonic.manifest": text, module: YANG, "maintainer": "me"}),
                    "no such label of a package")

    def test_yang(self):
        for text, words in {
            YANG.replace("module sonic-boot-network", "module boot-network", 1): "does not begin with sonic-",
            YANG.replace("container sonic-boot-network", "container boot", 1): "no container of its own name",
            YANG[: len(YANG) // 2]: "is it whole?",
            "": "does not begin with a module",
            YANG.replace("container BOOT_NETWORK {", "container BOOT_NET {", 1): "init-cfg.BOOT_NETWORK: no YANG",
        }.items():
            self.assertNotEqual(text, YANG)
            labels = {"com.azure.sonic.manifest": json.dumps(MANIFEST), "com.azure.sonic.yang-module": text}
            with self.subTest(words):
                self.expect(faults(labels=labels), words)

    def test_the_image(self):
        self.expect(faults(config={"Env": ["PATH=/usr/bin"]}), "neither entry point nor command")
        self.expect(faults(files={**FILES, "usr/bin/switch-agent": (0o644, b"")}), "no program")
        self.expect(faults(config={"Entrypoint": ["/usr/bin/switch-agent"], "Env": ["PATH=/bin"]}),
                    "debug-dump: there is no program")
        fat = {**FILES, "usr/lib/fat": (0o644, bytes(CHECK.IMAGE_BYTES_MAX))}
        self.expect(faults(files=fat), "more than")
        lacking = {name: file for name, file in FILES.items() if "cli/show" not in name}
        self.expect(faults(files=lacking), "is not in the image")
        for text, words in ((b"def register(", "boot_network.py"), (b"x = 1", "no function register")):
            self.expect(faults(files={**FILES, PLUGIN.format("config"): (0o644, text)}), words)


class Build(unittest.TestCase):
    """What `build` hands to Docker, with a docker that keeps it instead of an engine."""

    def build(self, *options, program="/bin/true"):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        place = pathlib.Path(directory.name)
        keep = '#!/bin/sh\nif [ "$1" = build ]; then printf "%s\\0" "$@" >"$KEPT"; else exit 3; fi\n'
        (place / "docker").write_text(keep)
        (place / "docker").chmod(0o755)
        environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "KEPT": str(place / "kept"),
                       "CARGO_TARGET_DIR": str(place / "target")}
        run = subprocess.run([HERE / "build", "--binary", program, *options], env=environment,
                             capture_output=True, text=True, check=False)
        # The double saves no image: that must not look like success.
        self.assertNotEqual(run.returncode, 0)
        self.assertFalse(list(place.glob("target/sonic-package/*.tar.gz")), run.stdout)
        self.assertTrue((place / "kept").exists(), run.stderr)
        words = (place / "kept").read_text().split("\0")
        given = dict(word.split("=", 1) for word in words if word.startswith(("manifest=", "yang_module=")))
        return given, place / "target/sonic-package/context/rootfs", words

    def test_version_initial_configuration_and_yang_go_in(self):
        given, rootfs, words = self.build()
        manifest = json.loads(given["manifest"])
        version = re.search(r'^\[workspace\.package\]\nversion = "(.*)"$', (REPO / "Cargo.toml").read_text(), re.M)
        self.assertEqual(manifest, {**MANIFEST, "package": {**MANIFEST["package"], "version": version[1]}})
        self.assertEqual(given["yang_module"], YANG.rstrip("\n"))
        self.assertIn(f"switch-agent:{version[1]}", words)
        self.assertTrue((rootfs / "usr/bin/switch-agent").exists())
        for path in FILES:
            self.assertTrue((rootfs / path).exists(), path)

    def test_the_libraries_of_the_program_and_no_others(self):
        _, rootfs, _ = self.build()
        needed = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout
        names = set(re.findall(r"(\S+\.so\.\d+) \(|(\S+\.so\.\d+) =>", needed))
        wanted = {os.path.basename(a or b) for a, b in names} - {"linux-vdso.so.1"}
        self.assertEqual({path.name for path in rootfs.rglob("*.so.*")}, wanted)

    def test_a_static_program_needs_none_and_the_docker_client_does(self):
        # Debian's ldconfig is static, as the agent is.
        static = "/sbin/ldconfig"
        _, rootfs, _ = self.build(program=static)
        self.assertEqual(list(rootfs.rglob("*.so.*")), [])
        _, rootfs, _ = self.build("--frr-through-docker", program=static)
        names = {path.name for path in rootfs.rglob("*.so.*")}
        self.assertIn("libc.so.6", names)
        self.assertTrue([name for name in names if name.startswith("ld-linux")], names)

    def test_the_docker_socket_only_where_it_is_asked_for(self):
        self.assertNotIn("docker", json.dumps(json.loads(self.build()[0]["manifest"])["container"]))
        volumes = json.loads(self.build("--frr-through-docker")[0]["manifest"])["container"]["volumes"]
        self.assertIn("/var/run/docker.sock:/var/run/docker.sock", volumes)
        self.assertIn("/usr/bin/docker:/usr/bin/docker:ro", volumes)

    def test_a_tag_that_the_package_manager_cannot_split(self):
        for tag in ("registry:5000/switch-agent:1", "switch-agent"):
            run = subprocess.run([HERE / "build", "--binary", "/bin/true", "--tag", tag],
                                 capture_output=True, text=True, check=False)
            self.assertIn("the tag must be NAME:TAG", run.stderr)


if __name__ == "__main__":
    unittest.main()
