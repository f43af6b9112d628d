"""ValidatedConfigDBConnector: with validation on, every write is a JSON patch of the whole configuration.

Like the real one its set_entry makes text of every value. The validation here knows one rule only: a
leaf-list is a list and a leaf is none.
"""

import jsonpatch
from sonic_py_common import device_info

LEAF_LISTS = {"rdnss", "initrd_url", "leak_prefix"}
TABLES = ["BOOT_NETWORK", "BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT", "BOOT_NETWORK_PROFILE"]


class ValidatedConfigDBConnector:
    """`refused`: tables whose removal is refused, which the real one only logs."""

    refused = set()

    def __init__(self, config_db_connector):
        self.connector = config_db_connector
        self.yang_enabled = device_info.is_yang_config_validation_enabled(config_db_connector)

    def __getattr__(self, name):
        if self.yang_enabled and name == "set_entry":
            return self.validated_set_entry
        return getattr(self.connector, name)

    def validated_set_entry(self, table, key, row):
        path = "/{}/{}".format(table, key)
        if row is None:
            operation = {"op": "remove", "path": path}
        else:
            operation = {"op": "add", "path": path, "value": {field: str(value) for field, value in row.items()}}
        self.apply_patch(jsonpatch.JsonPatch([operation]), table)

    def apply_patch(self, patch, table):
        before = {name: self.connector.get_table(name) for name in TABLES}
        before = {name: rows for name, rows in before.items() if rows}
        after = patch.apply(before)
        for rows in after.values():
            for row in rows.values():
                for field, value in row.items():
                    if isinstance(value, list) != (field in LEAF_LISTS):
                        raise ValueError("Data Loading Failed: {}: {!r}".format(field, value))
        if not after.get(table) and table in self.refused:
            return
        for name in TABLES:
            for key in set(before.get(name, {})) | set(after.get(name, {})):
                self.connector.set_entry(name, key, after.get(name, {}).get(key))
