"""A Redis of its own with SONiC's databases, the plugins, and a stand-in for the agent's admin API."""

import importlib.util
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from unittest import mock

import click
import redis
from click.testing import CliRunner

TESTS = Path(__file__).resolve().parent
CLI = TESTS.parent
REPOSITORY = CLI.parent.parent
sys.path.insert(0, str(TESTS / "doubles"))
sys.dont_write_bytecode = True
from config.validated_config_db_connector import ValidatedConfigDBConnector  # noqa: E402,F401
from sonic_py_common import multi_asic  # noqa: E402,F401

# SONiC's ids and separators of the databases that matter here.
DATABASES = {"APPL_DB": (0, ":"), "CONFIG_DB": (4, "|"), "STATE_DB": (6, "|")}


def load_plugin(command):
    """The plugin as `command` loads it: under the package's name, which is no Python identifier."""
    path = CLI / command / "boot_network.py"
    spec = importlib.util.spec_from_file_location(command + ".plugins.boot-network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Redis:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="boot-network-cli-")
        self.socket = os.path.join(self.directory, "redis.sock")
        layout = {
            "INSTANCES": {"redis": {"hostname": "127.0.0.1", "port": 6379, "unix_socket_path": self.socket}},
            "DATABASES": {
                name: {"id": number, "separator": separator, "instance": "redis"}
                for name, (number, separator) in DATABASES.items()
            },
            "VERSION": "1.0",
        }
        path = os.path.join(self.directory, "database_config.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(layout, file)
        os.environ["BOOT_NETWORK_TEST_DATABASES"] = path
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", self.directory]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.config, self.state = self.client("CONFIG_DB"), self.client("STATE_DB")
        deadline = time.monotonic() + 10
        while not self.answers():
            if time.monotonic() > deadline:
                self.close()
                raise TimeoutError("redis-server does not answer")
            time.sleep(0.02)

    def answers(self):
        try:
            # The socket is there before the server listens.
            return os.path.exists(self.socket) and self.config.ping()
        except redis.ConnectionError:
            return False

    def client(self, name):
        return redis.Redis(unix_socket_path=self.socket, db=DATABASES[name][0], decode_responses=True)

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory)


class PluginTest(unittest.TestCase):
    """A test with the plugin of `command`, and databases that are empty at first."""

    command = "show"

    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.addClassCleanup(cls.redis.close)
        cls.plugin = load_plugin(cls.command)
        cls.root = root_of(cls.plugin)

    def setUp(self):
        self.redis.config.flushall()
        # Nobody answers there unless the test says so.
        environment = {
            "SWITCH_AGENT_ADMIN_SOCKET": os.path.join(self.redis.directory, "admin.sock"),
            "SWITCH_AGENT_ADMIN_LISTEN": "none",
        }
        patch = mock.patch.dict(os.environ, environment)
        patch.start()
        self.addCleanup(patch.stop)

    def configure(self, rows):
        write(self.redis.config, rows)

    def report(self, rows):
        write(self.redis.state, rows)

    def row(self, key):
        """A row of CONFIG_DB as Redis has it, empty where there is none."""
        return self.redis.config.hgetall(key)

    def run_command(self, *words):
        return runner().invoke(self.root, ["boot-network", *words])

    def ok(self, *words):
        """What the command prints; it must succeed."""
        result = self.run_command(*words)
        self.assertEqual(result.exit_code, 0, (words, result.stderr, result.exception))
        return result.stdout

    def json(self, *words):
        return json.loads(self.ok(*words, "--json"))

    def refused(self, *words):
        """What the command says to its refusal; it must have changed nothing."""
        before = dump(self.redis.config)
        result = self.run_command(*words)
        self.assertNotEqual(result.exit_code, 0, (words, result.stdout))
        self.assertIsInstance(result.exception, SystemExit, repr(result.exception))
        self.assertEqual(dump(self.redis.config), before)
        return result.stderr


def runner():
    """Keeps stderr apart, which click does without being told from 8.2 on."""
    try:
        return CliRunner(mix_stderr=False)
    except TypeError:
        return CliRunner()


def root_of(*plugins):
    @click.group()
    def root():
        pass

    for plugin in plugins:
        plugin.register(root)
    return root


def write(client, rows):
    for key, fields in rows.items():
        client.hset(key, mapping=fields or {"NULL": "NULL"})


def dump(client):
    return {key: client.hgetall(key) for key in client.keys()}


class AdminApi:
    """Answers of the admin API by path, on a unix socket (a text) or a loopback address (a pair).

    What is not asked by GET is found under its method and path. `asked` is all that was asked.
    """

    def __init__(self, address, answers):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(self.path)

            def do_DELETE(self):
                self.answer("DELETE " + self.path)

            def answer(self, question):
                asked.append(question)
                missing = (404, {"error": {"code": "not_found", "message": "no boot port of that name"}})
                status, answer = answers.get(question, missing)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self):
                return "client"

            def log_message(self, *_):
                pass

        server = socketserver.UnixStreamServer if isinstance(address, str) else socketserver.TCPServer
        self.server = server(address, Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        if isinstance(self.server, socketserver.UnixStreamServer):
            os.unlink(self.server.server_address)


def yang_fields():
    """(leaves, leaf-lists) of each table of the YANG module; groupings are put where they are used."""
    text = (REPOSITORY / "sonic-package/yang/sonic-boot-network.yang").read_text(encoding="utf-8")
    found, stack = {}, []
    for line in text.splitlines():
        opened = re.match(r"\s*(container|list|grouping|leaf|leaf-list|uses)\s+([\w-]+)\s*[{;]", line)
        if opened and opened[1] in ("leaf", "leaf-list", "uses"):
            outer = next((name for kind, name in reversed(stack) if kind in ("list", "grouping", "container")), None)
            found.setdefault(outer, []).append((opened[1], opened[2]))
        # Braces within quotes are patterns and texts.
        bare = re.sub(r'"(\\.|[^"\\])*"', "", line)
        for brace in re.findall(r"[{}]", bare):
            if brace == "}":
                stack.pop()
            else:
                stack.append((opened[1], opened[2]) if opened else ("", ""))
                opened = None
    tables = {}
    for name, entries in found.items():
        if name == "global" or name.endswith("_LIST"):
            table = "BOOT_NETWORK" if name == "global" else name[: -len("_LIST")]
            whole = [e for e in entries if e[0] != "uses"]
            for _, grouping in (e for e in entries if e[0] == "uses"):
                whole += found[grouping]
            leaves = {field for kind, field in whole if kind == "leaf"}
            tables[table] = (leaves, {field for kind, field in whole if kind == "leaf-list"})
    return tables
