//! Gathers one Observed from the backends; no decisions.
