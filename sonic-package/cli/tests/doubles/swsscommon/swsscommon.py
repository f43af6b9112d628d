"""The two connectors of swsscommon as far as the plugins use them, on a real Redis.

Where the databases are is read from the database_config.json that BOOT_NETWORK_TEST_DATABASES names.
"""

import json
import os

import redis


class SonicV2Connector:
    """Databases by name. Rows that are not there read as empty, as in SONiC."""

    CONFIG_DB = "CONFIG_DB"
    STATE_DB = "STATE_DB"

    def __init__(self, **_):
        with open(os.environ["BOOT_NETWORK_TEST_DATABASES"], encoding="utf-8") as file:
            self.layout = json.load(file)
        self.clients = {}

    def get_db_list(self):
        return list(self.layout["DATABASES"])

    def connect(self, name):
        database = self.layout["DATABASES"][name]
        path = self.layout["INSTANCES"][database["instance"]]["unix_socket_path"]
        self.clients[name] = redis.Redis(unix_socket_path=path, db=database["id"], decode_responses=True)

    def keys(self, name, pattern="*"):
        return self.clients[name].keys(pattern)

    def get_all(self, name, key):
        return self.clients[name].hgetall(key)

    def set(self, name, key, field, value):
        return self.clients[name].hset(key, field, value)


class ConfigDBConnector(SonicV2Connector):
    """CONFIG_DB with lists as `field@`, empty rows as NULL:NULL and None for a row to delete."""

    def connect(self, *_):
        super().connect(self.CONFIG_DB)
        self.client = self.clients[self.CONFIG_DB]

    def get_table(self, table):
        prefix = table + "|"
        rows = {}
        for raw in self.client.keys(prefix + "*"):
            parts = tuple(raw[len(prefix):].split("|"))
            rows[parts[0] if len(parts) == 1 else parts] = self.typed(self.client.hgetall(raw))
        return rows

    def get_entry(self, table, key):
        return self.typed(self.client.hgetall("{}|{}".format(table, key)))

    def set_entry(self, table, key, row):
        name = "{}|{}".format(table, key)
        if row is None:
            self.client.delete(name)
            return
        wanted = self.raw(row)
        before = self.client.hkeys(name)
        self.client.hset(name, mapping=wanted)
        for field in set(before) - set(wanted):
            self.client.hdel(name, field)

    @staticmethod
    def typed(raw):
        lists = {field[:-1]: value.split(",") for field, value in raw.items() if field.endswith("@")}
        plain = {f: value for f, value in raw.items() if not f.endswith("@") and f != "NULL"}
        return {**plain, **lists}

    @staticmethod
    def raw(row):
        if not row:
            return {"NULL": "NULL"}
        return {
            field + "@" if isinstance(value, list) else field: ",".join(value) if isinstance(value, list) else str(value)
            for field, value in row.items()
        }
