//! Identity statements: what the agent signs, and when a machine token is good.
//!
//! Two kinds of JWS (RFC 7515, compact, EdDSA over Ed25519 by RFC 8037) leave the switch. The *statement*
//! ([`IdentityClaims`], header `X-Boot-Identity`) says of forwarded requests where they came in. The
//! *machine token* ([`MachineClaims`]) opens the control API for a machine, which presents either it or a
//! *handle*, a random text that stands for it. Both are worth something only while [`TokenTable`] holds them
//! for the very port, VRF, interface and MAC that they were minted for.

pub mod claims;
pub mod jws;
pub mod table;

pub use claims::{
    ClaimRefusal, IdentityClaims, MachineClaims, STATEMENT_REUSE, STATEMENT_TTL, check_machine,
};
pub use jws::{InvalidJws, Jws, JwsKind};
pub use table::{Admission, Binding, Digest, Grant, Live, MintRefusal, TokenRefusal, TokenTable};
