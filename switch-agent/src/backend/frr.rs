//! vtysh: reading FRR's state and applying a delta.
