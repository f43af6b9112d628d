//! Requests of machines.
