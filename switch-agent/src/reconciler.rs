//! The only loop: wait, observe, plan, execute, publish.
