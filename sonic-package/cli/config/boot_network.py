"""`config boot-network`: settings of the boot network, a plugin of SONiC's `config` command.

Writes the BOOT_NETWORK* tables of CONFIG_DB and refuses what can be nothing but a mistake: unknown fields,
rows that exist or do not, references to what is not there. Values are judged by the YANG module, where the
switch validates configuration, and by the agent, which tells of bad rows in `show boot-network status`.
"""

import difflib

import click
import natsort
import utilities_common.cli as clicommon
from sonic_py_common import multi_asic

try:
    from config.validated_config_db_connector import ValidatedConfigDBConnector
except ImportError:  # Releases that write CONFIG_DB without validation.
    ValidatedConfigDBConnector = None

GLOBAL = "BOOT_NETWORK"
PARTITION = "BOOT_NETWORK_PARTITION"
PORT = "BOOT_NETWORK_PORT"
PROFILE = "BOOT_NETWORK_PROFILE"

# The leaves and leaf-lists of the YANG module sonic-boot-network.
ROUTER_LEAVES = """
    ra_profile max_rtr_adv_interval min_rtr_adv_interval adv_default_lifetime adv_valid_lifetime
    adv_preferred_lifetime adv_on_link_flag adv_autonomous_flag adv_pd_preferred_flag adv_link_mtu
    adv_cur_hop_limit adv_reachable_time adv_retrans_timer prf pref64 captive_portal
""".split()
ROUTER_LISTS = ["rdnss", "dnssl", "dnr", "route_info"]
LEAVES = {
    GLOBAL: """
        admin_status switch_id control_api_url control_api_dialect control_api_vrf control_api_ca_file
        control_api_client_cert_file control_api_client_key_file control_api_token_file
        metal_stack_grpc_address metal_stack_grpc_ca_file metal_stack_grpc_cert_file metal_stack_grpc_key_file
        metal_stack_hmac_file control_api_component_type machine_token proxy_port leak_method
    """.split(),
    PARTITION: """
        prefix vrf_name manage_vrf advertise proxy leak isolate dhcp6 leak_vrf boot_profile boot_kernel_url
        boot_cmdline boot_template_file machine_config_file
    """.split() + ROUTER_LEAVES,
    PORT: "partition prefix_offset admin_status boot_profile boot_profile_once".split() + ROUTER_LEAVES,
    PROFILE: ["kernel_url", "cmdline", "template_file"],
}
LEAF_LISTS = {
    GLOBAL: [],
    PARTITION: """
        dhcp6_boot_url dhcp6_boot_param service_address ntp_servers leak_prefix api_allow boot_initrd_url
        boot_root_path
    """.split() + ROUTER_LISTS,
    PORT: ROUTER_LISTS,
    PROFILE: ["initrd_url", "root_path"],
}
REQUIRED = {GLOBAL: [], PARTITION: ["prefix"], PORT: ["partition"], PROFILE: []}
# A profile with none of them boots nothing.
BOOTABLE = ["kernel_url", "template_file", "root_path"]


def fail(table, key, message, field=None):
    where = "{}|{}".format(table, key) + (": " + field if field else "")
    raise click.ClickException("{}: {}".format(where, message))


class Rows:
    """Rows of CONFIG_DB: read, checked, written as sonic-utilities does."""

    def __init__(self, db):
        self.reader = db.cfgdb
        self.writer = ValidatedConfigDBConnector(db.cfgdb) if ValidatedConfigDBConnector else db.cfgdb

    def table(self, table):
        return self.reader.get_table(table)

    def has(self, table, key):
        return key in self.table(table)

    def existing(self, table, key, hint="add it first"):
        """The row; an error where there is none."""
        rows = self.table(table)
        if key not in rows:
            fail(table, key, "does not exist, " + hint)
        return dict(rows[key])

    def add(self, table, key, row):
        if self.has(table, key):
            fail(table, key, "exists already")
        self.write(table, key, row)

    def set(self, table, key, row, field, values):
        row[field] = typed(table, key, field, values)
        self.check_reference(table, key, field, row[field])
        self.write(table, key, row)

    def unset(self, table, key, row, field):
        known(table, key, field)
        if field not in row:
            fail(table, key, "is not set", field)
        if field in REQUIRED[table]:
            fail(table, key, "is required", field)
        del row[field]
        # Where the global row is absent the defaults hold.
        self.write(table, key, None if table == GLOBAL and not row else row)

    def check_reference(self, table, key, field, value):
        """Refuses to name a partition or a profile that is not there."""
        if (table, field) == (PORT, "partition"):
            target, name = PARTITION, value
        elif field in ("boot_profile", "boot_profile_once") and table in (PARTITION, PORT):
            target, name = PROFILE, profile_name(field, value)
        else:
            return
        if not self.has(target, name):
            fail(table, key, "{}|{} does not exist".format(target, name), field)

    def write(self, table, key, row):
        """Makes the row be `row`; None deletes it."""
        if table == PROFILE and row is not None and not any(field in row for field in BOOTABLE):
            fail(table, key, "boots nothing without one of " + ", ".join(BOOTABLE))
        validated = getattr(self.writer, "yang_enabled", False)
        try:
            if validated and row is not None:
                self.patch(table, key, row)
            else:
                self.writer.set_entry(table, key, row)
        except Exception as error:
            # Validation has several exceptions, none of them of its own.
            fail(table, key, "not written: {}".format(error))
        # That a table's last row may not go is only logged.
        if validated and self.table(table).get(key) != row:
            fail(table, key, "not written: refused by the validation of CONFIG_DB, see the system log")

    def patch(self, table, key, row):
        """The validated way for rows with lists, which ValidatedConfigDBConnector.set_entry makes text of."""
        import jsonpatch

        operations = [{"op": "add", "path": "/{}/{}".format(table, key), "value": row}]
        if not self.table(table):
            operations.insert(0, {"op": "add", "path": "/" + table, "value": {}})
        self.writer.apply_patch(jsonpatch.JsonPatch(operations), table)


def profile_name(field, value):
    """The profile that a field names; boot_profile_once may have a tag behind it."""
    return value.split("@", 1)[0] if field == "boot_profile_once" else value


def known(table, key, field):
    fields = LEAVES[table] + LEAF_LISTS[table]
    if field not in fields:
        close = difflib.get_close_matches(field, fields, 1)
        fail(table, key, "no such field" + (", did you mean {}?".format(close[0]) if close else ""), field)


def typed(table, key, field, values):
    """The value of a leaf, or the items of a leaf-list, of the words of the command line."""
    known(table, key, field)
    if any(not value for value in values):
        fail(table, key, "an empty value; `unset` removes a field", field)
    if field in LEAF_LISTS[table]:
        for value in values:
            if "," in value:
                message = 'no item has a comma: "{}"; items are words of their own'.format(value)
                fail(table, key, message, field)
        return list(values)
    if len(values) != 1:
        fail(table, key, "takes one value, not {}".format(len(values)), field)
    return values[0]


def check_key(table, key):
    """Refuses keys that would be something else in CONFIG_DB, or in a path of a validated change."""
    if not key or any(c in "|/~" or not c.isprintable() or c.isspace() for c in key):
        fail(table, key, "not a name")


def port_name(db, name):
    """The port that the operator means: SONIC_CLI_IFACE_MODE=alias makes it an alias."""
    if clicommon.get_interface_naming_mode() == "alias":
        try:
            return clicommon.InterfaceAliasConverter(db).alias_to_name(name)
        except KeyError:  # A port without an alias.
            pass
    return name


def users(rows, table, fields, name):
    """Rows of `table` that name `name` in one of `fields`."""
    return [
        "{}|{}".format(table, key)
        for key, row in rows.table(table).items()
        if any(field in row and profile_name(field, row[field]) == name for field in fields)
    ]


def refuse_used(table, key, found):
    if found:
        fail(table, key, "is used by " + ", ".join(natsort.natsorted(found)))


@click.group(name="boot-network", cls=clicommon.AbbreviationGroup)
@click.option("--namespace", "-n", default=None, help="Not available: the boot network is of the whole switch")
def boot_network(namespace):
    """Configure the boot network"""
    if multi_asic.is_multi_asic():
        raise click.ClickException("boot-network is not available on multi-ASIC switches")
    if namespace is not None:
        raise click.ClickException("boot-network has no namespaces: -n/--namespace is for multi-ASIC switches")


@boot_network.command("admin-status")
@click.argument("state", type=click.Choice(["up", "down"]))
@clicommon.pass_db
def admin_status(db, state):
    """Switch the boot network on or off; `down` withdraws everything the agent owns"""
    set_global(db, "admin_status", [state])


# Global

@boot_network.group("global", cls=clicommon.AbbreviationGroup)
def global_group():
    """Settings of the agent: BOOT_NETWORK|global"""


def set_global(db, field, values):
    rows = Rows(db)
    rows.set(GLOBAL, "global", dict(rows.table(GLOBAL).get("global", {})), field, values)


@global_group.command("set")
@click.argument("field")
@click.argument("values", metavar="VALUE", nargs=-1, required=True)
@clicommon.pass_db
def global_set(db, field, values):
    """Set a field"""
    set_global(db, field, values)


@global_group.command("unset")
@click.argument("field")
@clicommon.pass_db
def global_unset(db, field):
    """Remove a field, so that its default holds"""
    rows = Rows(db)
    rows.unset(GLOBAL, "global", dict(rows.table(GLOBAL).get("global", {})), field)


# Partitions

@boot_network.group(cls=clicommon.AbbreviationGroup)
def partition():
    """Partitions: BOOT_NETWORK_PARTITION"""


@partition.command("add")
@click.argument("partition_id", metavar="ID")
@click.argument("prefix")
@clicommon.pass_db
def partition_add(db, partition_id, prefix):
    """Add a partition with its boot prefix"""
    check_key(PARTITION, partition_id)
    row = {"prefix": typed(PARTITION, partition_id, "prefix", [prefix])}
    Rows(db).add(PARTITION, partition_id, row)


@partition.command("del")
@click.argument("partition_id", metavar="ID")
@clicommon.pass_db
def partition_del(db, partition_id):
    """Delete a partition that no port uses"""
    rows = Rows(db)
    rows.existing(PARTITION, partition_id, "there is nothing to delete")
    refuse_used(PARTITION, partition_id, users(rows, PORT, ["partition"], partition_id))
    rows.write(PARTITION, partition_id, None)


@partition.command("set")
@click.argument("partition_id", metavar="ID")
@click.argument("field")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@clicommon.pass_db
def partition_set(db, partition_id, field, values):
    """Set a field; a list takes its items one after the other"""
    rows = Rows(db)
    rows.set(PARTITION, partition_id, rows.existing(PARTITION, partition_id), field, values)


@partition.command("unset")
@click.argument("partition_id", metavar="ID")
@click.argument("field")
@clicommon.pass_db
def partition_unset(db, partition_id, field):
    """Remove a field, so that its default holds"""
    rows = Rows(db)
    rows.unset(PARTITION, partition_id, rows.existing(PARTITION, partition_id), field)


# Ports

@boot_network.group(cls=clicommon.AbbreviationGroup)
def port():
    """Boot ports: BOOT_NETWORK_PORT"""


@port.command("add")
@click.argument("name", metavar="PORT")
@click.argument("partition_id", metavar="PARTITION")
@clicommon.pass_db
def port_add(db, name, partition_id):
    """Make a port a boot port of a partition"""
    rows, name = Rows(db), port_name(db, name)
    ports = rows.table("PORT")
    if name not in ports and not rows.has("PORTCHANNEL", name):
        fail(PORT, name, "no such port in PORT or PORTCHANNEL")
    role = ports.get(name, {}).get("role", "Ext")
    if role != "Ext":
        fail(PORT, name, "PORT|{} has the role {}; only Ext is a front-panel port".format(name, role))
    row = {"partition": typed(PORT, name, "partition", [partition_id])}
    rows.check_reference(PORT, name, "partition", partition_id)
    rows.add(PORT, name, row)


@port.command("del")
@click.argument("name", metavar="PORT")
@clicommon.pass_db
def port_del(db, name):
    """Take a port out of the boot network"""
    rows, name = Rows(db), port_name(db, name)
    rows.existing(PORT, name, "there is nothing to delete")
    rows.write(PORT, name, None)


@port.command("set")
@click.argument("name", metavar="PORT")
@click.argument("field")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@clicommon.pass_db
def port_set(db, name, field, values):
    """Set a field; a list takes its items one after the other"""
    rows, name = Rows(db), port_name(db, name)
    rows.set(PORT, name, rows.existing(PORT, name), field, values)


@port.command("unset")
@click.argument("name", metavar="PORT")
@click.argument("field")
@clicommon.pass_db
def port_unset(db, name, field):
    """Remove a field, so that the partition's value holds"""
    rows, name = Rows(db), port_name(db, name)
    rows.unset(PORT, name, rows.existing(PORT, name), field)


@port.command("admin-status")
@click.argument("name", metavar="PORT")
@click.argument("state", type=click.Choice(["up", "down"]))
@clicommon.pass_db
def port_admin_status(db, name, state):
    """Switch a boot port on or off; `down` takes it out of the boot VRF"""
    rows, name = Rows(db), port_name(db, name)
    rows.set(PORT, name, rows.existing(PORT, name), "admin_status", [state])


# Profiles

@boot_network.group(cls=clicommon.AbbreviationGroup)
def profile():
    """Boot profiles: BOOT_NETWORK_PROFILE"""


@profile.command("add")
@click.argument("name")
@click.option("--kernel-url", help="Kernel")
@click.option("--initrd-url", multiple=True, help="Initial RAM disk; may be given several times, in order")
@click.option("--cmdline", help="Kernel command line")
@click.option("--template-file", help="Template of the boot script")
@click.option("--root-path", multiple=True, help="SAN target; may be given several times, in order")
@clicommon.pass_db
def profile_add(db, name, **options):
    """Add a profile: a kernel, a template, or a SAN target at least"""
    check_key(PROFILE, name)
    row = {}
    for field, value in options.items():
        if value is not None and value != ():
            row[field] = typed(PROFILE, name, field, [value] if isinstance(value, str) else value)
    Rows(db).add(PROFILE, name, row)


@profile.command("del")
@click.argument("name")
@clicommon.pass_db
def profile_del(db, name):
    """Delete a profile that no partition and no port uses"""
    rows = Rows(db)
    rows.existing(PROFILE, name, "there is nothing to delete")
    fields = ["boot_profile", "boot_profile_once"]
    refuse_used(PROFILE, name, users(rows, PARTITION, fields, name) + users(rows, PORT, fields, name))
    rows.write(PROFILE, name, None)


@profile.command("set")
@click.argument("name")
@click.argument("field")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@clicommon.pass_db
def profile_set(db, name, field, values):
    """Set a field; a list takes its items one after the other"""
    rows = Rows(db)
    rows.set(PROFILE, name, rows.existing(PROFILE, name), field, values)


@profile.command("unset")
@click.argument("name")
@click.argument("field")
@clicommon.pass_db
def profile_unset(db, name, field):
    """Remove a field"""
    rows = Rows(db)
    rows.unset(PROFILE, name, rows.existing(PROFILE, name), field)


def register(cli):
    if boot_network.name in cli.commands:
        raise Exception("{} already exists in CLI".format(boot_network.name))
    cli.add_command(boot_network)
