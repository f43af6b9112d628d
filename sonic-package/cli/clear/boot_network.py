"""`sonic-clear boot-network`: forgets what the agent only keeps for people, a plugin of SONiC's `sonic-clear`.

Asks the agent by its admin socket, which is root's. Touches no database.
"""

import http.client
import json
import os
import socket
from urllib.parse import quote

import click
import natsort
from sonic_py_common import multi_asic

# Default of the agent itself, which takes the same environment variable.
ADMIN_SOCKET = "/run/switch-agent/admin.sock"
ADMIN_TIMEOUT_S = 5
ADMIN_ANSWER_MAX = 4 * 1024 * 1024


@click.group(name="boot-network")
def boot_network():
    """Clear what is kept of the boot network"""
    if multi_asic.is_multi_asic():
        raise click.ClickException("boot-network is not available on multi-ASIC switches")


@boot_network.command()
@click.argument("port", required=False)
def timeline(port):
    """Forget the past boots of a port (name or alias), or of every port

    The last boot stays: it is what the machine is doing. Machines, tokens and counters are not touched.
    """
    ports = [port] if port else natsort.natsorted(entry["port"] for entry in ask_agent("GET", "/v1/ports")["ports"])
    for name in ports:
        answer = ask_agent("DELETE", "/v1/ports/{}/timeline".format(quote(name, safe="")))
        if port or answer["forgotten"]:
            boots = "{} past boot{}".format(answer["forgotten"], "" if answer["forgotten"] == 1 else "s")
            click.echo("{}: {} forgotten".format(answer["port"], boots))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("agent", timeout=ADMIN_TIMEOUT_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_agent(method, path):
    """The agent's answer, by the only listener of its admin API that changes anything."""
    where = os.getenv("SWITCH_AGENT_ADMIN_SOCKET", ADMIN_SOCKET)
    connection = UnixConnection(where)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        reason = "{}: {}".format(where, error.strerror or error)
        raise click.ClickException("the agent is not running, or may not be asked (root may): " + reason)
    try:
        connection.request(method, path)
        with connection.getresponse() as response:
            body = response.read(ADMIN_ANSWER_MAX + 1)
        if len(body) > ADMIN_ANSWER_MAX:
            raise ValueError("the answer is longer than {} bytes".format(ADMIN_ANSWER_MAX))
        answer = json.loads(body.decode("utf-8"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise click.ClickException("{}: no answer to be used: {}".format(where, ascii(str(error))))
    finally:
        connection.close()
    if response.status != 200:
        message = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
        raise click.ClickException(message or "{}: status {}".format(where, response.status))
    return answer


def register(cli):
    if boot_network.name in cli.commands:
        raise Exception("{} already exists in CLI".format(boot_network.name))
    cli.add_command(boot_network)
