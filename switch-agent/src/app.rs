//! Builds backends and tasks, and owns the order of shutdown.
