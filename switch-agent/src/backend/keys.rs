//! The agent's Ed25519 identity key.
