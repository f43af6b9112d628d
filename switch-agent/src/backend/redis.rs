//! SONiC's database_config.json and connections to it.
