//! The boot timeline of each port.
