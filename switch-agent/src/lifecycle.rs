//! Named tasks with an owner, a cancel and a deadline.
