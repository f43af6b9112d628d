//! CONFIG_DB: reading our tables, writing rows, following changes.
