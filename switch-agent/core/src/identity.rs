//! Identity statements: what the agent signs, and when a machine token is good.
//!
//! Two kinds of JWS (RFC 7515, compact, EdDSA over Ed25519 by RFC 8037) leave the switch. The *statement*
//! ([`IdentityClaims`], header `X-Boot-Identity`) says for one forwarded request where it came in. The
//! *machine token* ([`MachineClaims`]) is what a machine presents; it is worth something only while
//! [`TokenTable`] holds it for the very port, VRF, interface and MAC that it was minted for.

pub mod claims;
pub mod jws;
pub mod table;

pub use claims::{ClaimRefusal, IdentityClaims, MachineClaims, STATEMENT_TTL, check_machine};
pub use jws::{InvalidJws, Jws, JwsKind};
pub use table::{Binding, MintRefusal, TokenRefusal, TokenTable};
