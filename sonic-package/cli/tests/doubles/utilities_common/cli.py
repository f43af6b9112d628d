"""What the plugins take from utilities_common.cli: groups with abbreviations, databases, port aliases."""

import os

import click

from utilities_common.db import Db

pass_db = click.make_pass_decorator(Db, ensure=True)


class AbbreviationGroup(click.Group):
    """Takes the beginning of a command's name for it where that is unique."""

    def get_command(self, ctx, name):
        matches = [command for command in self.list_commands(ctx) if command.startswith(name)]
        if name in matches:
            return super().get_command(ctx, name)
        if len(matches) > 1:
            ctx.fail("Too many matches: " + ", ".join(sorted(matches)))
        return super().get_command(ctx, matches[0]) if matches else None


class InterfaceAliasConverter:
    """A row of PORT without an alias is a KeyError for the names looked up behind it, as in SONiC."""

    def __init__(self, db=None):
        self.ports = db.cfgdb.get_table("PORT")

    def name_to_alias(self, name):
        return self.ports[name]["alias"] if name in self.ports else name

    def alias_to_name(self, alias):
        for name in self.ports:
            if self.ports[name]["alias"] == alias:
                return name
        return alias


def get_interface_naming_mode():
    return os.getenv("SONIC_CLI_IFACE_MODE", "default")
