"""Whether CONFIG_DB is written through YANG validation."""


def is_yang_config_validation_enabled(config_db):
    return config_db.get_entry("DEVICE_METADATA", "localhost").get("yang_config_validation") == "enable"
