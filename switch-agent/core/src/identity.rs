//! Claims about a machine's port, as signed statements and tokens carry them.
