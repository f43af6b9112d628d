"""`show boot-network`: state of the boot network, a plugin of SONiC's `show` command.

Reads CONFIG_DB (what is wanted) and STATE_DB (what the agent reports there); the timeline of a port comes
from the agent's admin API. Changes nothing.
"""

import http.client
import json
import os
import socket
import time
from datetime import datetime, timezone
from urllib.parse import quote

import click
import natsort
import tabulate
import utilities_common.cli as clicommon
from sonic_py_common import multi_asic

PORT, PARTITION, GLOBAL = "BOOT_NETWORK_PORT", "BOOT_NETWORK_PARTITION", "BOOT_NETWORK"
PORT_STATE, PARTITION_STATE, AGENT_STATE = (
    "BOOT_NETWORK_PORT_TABLE",
    "BOOT_NETWORK_PARTITION_TABLE",
    "BOOT_NETWORK_STATE",
)
# The agent renews last_pass each 60 s, rounded down to 60 s; after three of them it is not there.
STALE_AFTER_S = 180
# Defaults of the agent itself, which takes the same environment variables.
ADMIN_SOCKET = "/run/switch-agent/admin.sock"
ADMIN_LISTEN = "127.0.0.1:18091"
ADMIN_TIMEOUT_S = 5
ADMIN_ANSWER_MAX = 4 * 1024 * 1024


def now():
    """Unix seconds."""
    return time.time()


def printable(value):
    """One cell: machines and FRR have their say in some values, a terminal must not obey them."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def timestamp(seconds):
    """RFC 3339 of Unix seconds as STATE_DB has them; what is no number as it is."""
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError, OverflowError, OSError):
        return printable(seconds)


def number(text):
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def print_json(value):
    click.echo(json.dumps(value, indent=4))


def print_table(header, rows):
    rows = [[printable(cell) for cell in row] for row in rows]
    # Nothing here is a quantity, and an id such as 1e3 must stay what it is.
    click.echo(tabulate.tabulate(rows, header, disable_numparse=True))


class Ports:
    """Names of ports as the operator wants to see them (SONIC_CLI_IFACE_MODE)."""

    def __init__(self, db):
        self.converter = None
        if clicommon.get_interface_naming_mode() == "alias":
            self.converter = clicommon.InterfaceAliasConverter(db)

    def shown(self, name):
        try:
            return self.converter.name_to_alias(name) if self.converter else name
        except KeyError:  # A port without an alias.
            return name


def state_rows(db, table):
    """Rows of a STATE_DB table by key, each a dict of strings."""
    client = db.db
    prefix = table + "|"
    rows = {}
    for key in client.keys(client.STATE_DB, prefix + "*") or []:
        fields = dict(client.get_all(client.STATE_DB, key) or {})
        fields.pop("NULL", None)
        rows[key[len(prefix):]] = fields
    return rows


class Agent:
    """What the agent last said about itself in STATE_DB."""

    def __init__(self, db):
        self.row = state_rows(db, AGENT_STATE).get("global")
        self.rejected = (self.row or {}).get("rejected", "").splitlines()
        self.warnings = (self.row or {}).get("warnings", "").splitlines()
        if self.row is None:
            self.state = "absent"
            self.remark = "The agent is not running: STATE_DB has no {}|global.".format(AGENT_STATE)
            return
        last_pass = number(self.row.get("last_pass"))
        if last_pass is not None and now() - last_pass > STALE_AFTER_S:
            self.state = "stale"
            self.remark = "The agent has not reported since {}: what is shown is from then.".format(
                timestamp(last_pass)
            )
        else:
            self.state, self.remark = "running", None

    def print_remark(self):
        if self.remark:
            click.echo(self.remark + "\n")


def merged(configured, states):
    """(key, configuration or None, state or None) in natural order."""
    keys = natsort.natsorted(set(configured) | set(states))
    return [(key, configured.get(key), states.get(key)) for key in keys]


def unreported(db, agent, row):
    """Why the agent reports nothing of a configured row."""
    for message in agent.rejected:
        if message.startswith(row + ": "):
            return "rejected: " + message[len(row) + 2:]
    if agent.state != "absent" and admin_status_of(db) == "down":
        return "BOOT_NETWORK|global has admin_status down"
    return "not reported by the agent"


def admin_status_of(db):
    return db.cfgdb.get_table(GLOBAL).get("global", {}).get("admin_status", "up")


def answer_rows(db, agent, table, state_table, key_name):
    """One dict per row, configured or reported, with the STATE_DB fields and `configured`, `remark`."""
    rows = []
    for key, configured, state in merged(db.cfgdb.get_table(table), state_rows(db, state_table)):
        if state is None:
            remark = unreported(db, agent, "{}|{}".format(table, key))
        else:
            waiting = "waits for " + state["waiting_on"] if "waiting_on" in state else None
            here = None if configured is not None else "not in CONFIG_DB"
            remark = "; ".join(filter(None, [state.get("error") or waiting, here]))
        row = {key_name: key, "configured": configured is not None, "remark": remark}
        row.update(state or {})
        rows.append(row)
    return rows


def ports_of(db, agent):
    rows = answer_rows(db, agent, PORT, PORT_STATE, "port")
    configured = db.cfgdb.get_table(PORT)
    for row in rows:
        # Without a report, the partition that is asked for.
        if row.get("partition") is None and row["port"] in configured:
            row["partition"] = configured[row["port"]].get("partition")
        row["admin_status"] = configured.get(row["port"], {}).get("admin_status", "up")
    return rows


def partitions_of(db, agent):
    rows = answer_rows(db, agent, PARTITION, PARTITION_STATE, "partition")
    configured = db.cfgdb.get_table(PARTITION)
    for row in rows:
        if row.get("prefix") is None and row["partition"] in configured:
            row["prefix"] = configured[row["partition"]].get("prefix")
    return rows


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON")


@click.group(name="boot-network", cls=clicommon.AbbreviationGroup, invoke_without_command=True)
@click.option("--namespace", "-n", default=None, help="Not available: the boot network is of the whole switch")
@json_option
@click.pass_context
def boot_network(ctx, namespace, as_json):
    """Show the boot network (without a subcommand: its status)"""
    if multi_asic.is_multi_asic():
        raise click.ClickException("boot-network is not available on multi-ASIC switches")
    if namespace is not None:
        raise click.ClickException("boot-network has no namespaces: -n/--namespace is for multi-ASIC switches")
    if ctx.invoked_subcommand is None:
        ctx.invoke(status, as_json=as_json)
    elif as_json:
        raise click.UsageError("--json goes behind the subcommand")


@boot_network.command()
@json_option
@clicommon.pass_db
def status(db, as_json):
    """Show whether the agent runs, its verdict, and which rows it rejects"""
    agent = Agent(db)
    fields = agent.row or {}
    phases = {}
    port_rows, partition_rows = ports_of(db, agent), partitions_of(db, agent)
    for port in port_rows:
        phase = port.get("phase", "unreported")
        phases[phase] = phases.get(phase, 0) + 1
    answer = {
        "agent": agent.state,
        "version": fields.get("version"),
        "verdict": fields.get("status"),
        "admin_status": admin_status_of(db),
        "last_pass": number(fields.get("last_pass")),
        "config_generation": number(fields.get("config_generation")),
        "router_discovery": fields.get("router_discovery"),
        "ports": phases,
        "partitions": len(partition_rows),
        "rejected": agent.rejected,
        "warnings": agent.warnings,
    }
    if as_json:
        print_json(answer)
        return
    agent.print_remark()
    counts = ", ".join("{} {}".format(phase, phases[phase]) for phase in sorted(phases))
    lines = [
        ("Agent", {"running": "running", "stale": "not reporting", "absent": "not running"}[agent.state]),
        ("Version", answer["version"]),
        ("Verdict", answer["verdict"]),
        ("Admin status", answer["admin_status"]),
        ("Last pass", timestamp(answer["last_pass"]) if answer["last_pass"] is not None else None),
        ("Router discovery", answer["router_discovery"]),
        ("Ports", "{} ({})".format(len(port_rows), counts) if port_rows else "none configured"),
        ("Partitions", len(partition_rows) or "none configured"),
    ]
    for title, value in lines:
        if value is not None:
            click.echo("{:<18}{}".format(title + ":", printable(value)))
    for title, messages in [("Warnings", agent.warnings), ("Rejected rows", agent.rejected)]:
        if messages:
            click.echo("\n{}:".format(title))
        for message in messages:
            click.echo("  " + printable(message))


@boot_network.command()
@json_option
@clicommon.pass_db
def ports(db, as_json):
    """Show the boot ports: phase, prefix, machine, and what they wait for"""
    agent = Agent(db)
    rows = ports_of(db, agent)
    if as_json:
        print_json({"agent": agent.state, "ports": rows})
        return
    agent.print_remark()
    if not rows:
        click.echo("No boot ports: {} of CONFIG_DB is empty.".format(PORT))
        return
    names = Ports(db)
    header = ["Port", "Partition", "Admin", "Phase", "VRF", "Prefix", "Machine", "Since", "Remark"]
    fields = ["partition", "admin_status", "phase", "vrf_name", "prefix", "mac"]
    body = []
    for row in rows:
        cells = [names.shown(row["port"])] + [row.get(field) for field in fields]
        body.append(cells + [timestamp(row["since"]) if "since" in row else "", row["remark"]])
    print_table(header, body)


@boot_network.command()
@json_option
@clicommon.pass_db
def partitions(db, as_json):
    """Show the partitions: boot VRF, prefix, ports and the leak"""
    agent = Agent(db)
    rows = partitions_of(db, agent)
    if as_json:
        print_json({"agent": agent.state, "partitions": rows})
        return
    agent.print_remark()
    if not rows:
        click.echo("No partitions: {} of CONFIG_DB is empty.".format(PARTITION))
        return
    body = []
    for row in rows:
        leak, isolation = (
            ": ".join(filter(None, [row.get(field), row.get(field + "_detail")])) for field in ("leak", "isolation")
        )
        ready = "{}/{}".format(row["ports_ready"], row["ports"]) if "ports" in row else ""
        vrf_ready = {"true": "yes", "false": "no"}.get(row.get("vrf_ready"), "")
        cells = [row["partition"], row.get("vrf_name"), row.get("prefix"), vrf_ready, ready]
        body.append(cells + [leak, isolation, row["remark"]])
    print_table(["Partition", "VRF", "Prefix", "VRF ready", "Ports ready", "Leak", "Isolation", "Remark"], body)


@boot_network.command()
@json_option
@clicommon.pass_db
def machines(db, as_json):
    """Show the machine seen last on each boot port"""
    agent = Agent(db)
    fields = ["mac", "port", "partition", "address", "machine_id"]
    rows = [{field: port.get(field) for field in fields} for port in ports_of(db, agent) if "mac" in port]
    if as_json:
        print_json({"agent": agent.state, "machines": rows})
        return
    agent.print_remark()
    if not rows:
        click.echo("No machine on any boot port.")
        return
    names = Ports(db)
    body = [[names.shown(row[field]) if field == "port" else row[field] for field in fields] for row in rows]
    print_table(["Machine", "Port", "Partition", "Address", "Machine ID"], body)


@boot_network.command()
@click.argument("port")
@click.option("--all", "every", is_flag=True, help="Every boot that is kept, not only the latest")
@json_option
@clicommon.pass_db
def timeline(db, port, every, as_json):
    """Show what a machine went through on a port (name or alias)"""
    answer = ask_agent("/v1/ports/{}/timeline".format(quote(port, safe="")))
    if as_json:
        print_json(answer)
        return
    shown = Ports(db).shown(answer["port"])
    boots = answer["boots"]
    if not boots:
        click.echo("No machine booted on {} since the agent started.".format(printable(shown)))
        return
    for index, boot in enumerate(boots if every else boots[:1]):
        started = printable(boot["started_at"])
        prefix = "\n" if index else ""
        click.echo("{}{}, boot {}, started {}\n".format(prefix, printable(shown), boot["number"], started))
        header = ["Stage", "After", "Step", "Count", "Detail"]
        print_table(header, [
            [
                entry["stage"],
                duration(entry["since_start_ms"]),
                duration(entry["since_previous_ms"]),
                entry["count"],
                entry["detail"],
            ]
            for entry in boot["entries"]
        ])


def duration(milliseconds):
    return "{}.{:03} s".format(*divmod(int(milliseconds), 1000))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("agent", timeout=ADMIN_TIMEOUT_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def admin_connections():
    """(where, connection) of the admin API, in the order to try.

    The socket shows on the host only where the package mounts its directory, and only root may open it. The
    container lives in the host's network namespace, so the agent's loopback address always does.
    """
    path = os.getenv("SWITCH_AGENT_ADMIN_SOCKET", ADMIN_SOCKET)
    yield path, UnixConnection(path)
    listen = os.getenv("SWITCH_AGENT_ADMIN_LISTEN", ADMIN_LISTEN)
    host, _, port = listen.rpartition(":")
    if listen != "none" and port.isdigit():
        yield listen, http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ADMIN_TIMEOUT_S)


def ask_agent(path):
    """The agent's answer to GET `path`, from the first address of the admin API that takes a connection."""
    failures = []
    for where, connection in admin_connections():
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            failures.append("{}: {}".format(where, error.strerror or error))
            continue
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                body = response.read(ADMIN_ANSWER_MAX + 1)
            if len(body) > ADMIN_ANSWER_MAX:
                raise ValueError("the answer is longer than {} bytes".format(ADMIN_ANSWER_MAX))
            answer = json.loads(body.decode("utf-8"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise click.ClickException("{}: no answer to be used: {}".format(where, printable(error)))
        finally:
            connection.close()
        if response.status != 200:
            message = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
            raise click.ClickException(printable(message or "{}: status {}".format(where, response.status)))
        return answer
    raise click.ClickException("the agent is not running, or may not be asked: " + "; ".join(failures))


def register(cli):
    if boot_network.name in cli.commands:
        raise Exception("{} already exists in CLI".format(boot_network.name))
    cli.add_command(boot_network)
