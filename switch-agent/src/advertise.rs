//! Drives the advertisers of core::ra: one packet socket, one timer, no decisions.
