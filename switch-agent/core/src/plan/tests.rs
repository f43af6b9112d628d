//! The plan against SimSwitch: goldens of one life, and properties over many.

mod filter;
mod hold;
mod isolation;
mod leak;
mod life;
mod properties;
mod rig;
mod rows;
