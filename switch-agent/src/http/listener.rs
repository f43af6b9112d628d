//! Device-bound listeners, one set per port.
