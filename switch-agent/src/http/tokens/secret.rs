//! Texts that open doors.

use std::fmt;

use ::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use switch_agent_core::identity::Digest;
use zeroize::Zeroizing;

/// Random bytes of a handle: 256 bits, nothing to guess.
const HANDLE_LEN: usize = 32;

/// A token or handle. Overwritten when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A fresh handle: 43 characters of base64url. `None` where the system gives no random numbers.
    pub fn handle() -> Option<Secret> {
        let mut bytes = Zeroizing::new([0; HANDLE_LEN]);
        SystemRandom::new().fill(bytes.as_mut()).ok()?;
        Some(Secret(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_ref()))))
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The text itself: for the reply to the one it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `Bearer <secret>`, marked as sensitive; `None` where it is no header text.
    pub fn bearer(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_long_different_and_not_printed() {
        let (one, other) = (Secret::handle().unwrap(), Secret::handle().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.digest(), other.digest());
        assert_eq!(format!("{one:?}"), "Secret(..)");
        assert!(!format!("{:?}", one.bearer()).contains(one.expose()));
    }
}
