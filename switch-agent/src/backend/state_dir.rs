//! The state directory: ledger, identity key, last good configuration.
