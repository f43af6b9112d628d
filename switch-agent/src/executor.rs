//! Maps each action to one backend call and its typed outcome.
