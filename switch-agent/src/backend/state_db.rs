//! STATE_DB and APPL_DB: what swss says, and our own status tables.
