//! Texts that open doors.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use switch_agent_core::identity::Digest;
use zeroize::Zeroizing;

/// Random bytes of a handle: 256 bits, nothing to guess.
const HANDLE_LEN: usize = 32;

/// A token or handle. Clones share one text, which is overwritten with the last of them, and never printed.
#[derive(Clone)]
pub struct Secret(Arc<Shared>);

struct Shared {
    text: Zeroizing<String>,
    /// Made when it is first asked for: every forwarded request takes it.
    bearer: OnceLock<Option<HeaderValue>>,
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Secret {}

impl Secret {
    /// A fresh handle: 43 characters of base64url. `None` where the system gives no random numbers.
    pub fn handle() -> Option<Secret> {
        let mut bytes = Zeroizing::new([0; HANDLE_LEN]);
        SystemRandom::new().fill(bytes.as_mut()).ok()?;
        Some(URL_SAFE_NO_PAD.encode(bytes.as_ref()).into())
    }

    pub fn digest(&self) -> Digest {
        Digest::of(self.expose())
    }

    /// The text itself: for the reply to the one it is meant for.
    pub fn expose(&self) -> &str {
        &self.0.text
    }

    /// `Bearer <secret>`, marked as sensitive; `None` where it is no header text.
    pub fn bearer(&self) -> Option<HeaderValue> {
        self.0.bearer.get_or_init(|| bearer(self.expose())).clone()
    }
}

/// Clones of the value share its text as well; it is overwritten with the last of them.
fn bearer(secret: &str) -> Option<HeaderValue> {
    const SCHEME: &str = "Bearer ";
    // No room for growth: what a text leaves behind when it grows is not overwritten.
    let mut text = Zeroizing::new(String::with_capacity(SCHEME.len() + secret.len()));
    text.push_str(SCHEME);
    text.push_str(secret);
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(Arc::new(Shared { text: Zeroizing::new(text), bearer: OnceLock::new() }))
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

    #[test]
    fn a_bearer_is_that_of_its_own_secret_and_shared_by_its_clones() {
        let (one, other) = (Secret::from("one".to_owned()), Secret::from("other".to_owned()));
        let bearer = |secret: &Secret| secret.bearer().unwrap();
        assert_eq!(
            (bearer(&one), bearer(&other)),
            ("Bearer one".parse().unwrap(), "Bearer other".parse().unwrap())
        );
        assert!(bearer(&one).is_sensitive());
        assert_eq!(bearer(&one).as_bytes().as_ptr(), bearer(&one.clone()).as_bytes().as_ptr());
        assert_eq!(one, "one".to_owned().into());
        assert_ne!(one, other);
        assert_eq!(Secret::from("a\nb".to_owned()).bearer(), None);
    }
}
