//! Takes out of a document what looks like a secret.
//!
//! The agent itself tells none; what operators write into configuration (command lines, URLs that carry
//! their own authorization) may.

use serde_json::Value;

/// In place of a secret.
const BLANK: &str = "(removed)";

/// Blanks values under names that mean secrets, user information of URLs (RFC 3986 section 3.2.1), and
/// `name=value` with such a name in texts: parameters of URLs and of command lines.
pub(super) fn blank_secrets(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(blank_secrets),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if is_secret_field(name) => BLANK.clone_into(text),
                    value => blank_secrets(value),
                }
            }
        }
        Value::String(text) if text.contains(['=', '@']) => {
            *text = text.split_inclusive(char::is_whitespace).map(blank_word).collect();
        }
        _ => {}
    }
}

fn means_secret(name: &str) -> bool {
    let words = ["password", "passwd", "passphrase", "secret", "signature", "credential"];
    words.iter().any(|word| name.contains(word))
}

/// Names of JSON members.
fn is_secret_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Paths and modes are no secrets.
    if name.ends_with("_file") {
        return false;
    }
    // `d` and `k` are the private members of a JWK (RFC 7518 section 6, RFC 8037 section 2).
    ["d", "k", "token", "authorization", "cookie", "private_key"].contains(&name.as_str())
        || means_secret(&name)
}

/// Names of parameters, of which there are as many as programs: rather one too many.
fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = ["token", "key", "sig", "auth", "pass", "psk", "pw"];
    means_secret(&name) || ends.iter().any(|end| name.ends_with(end))
}

/// A word of a text, with the blank that ends it.
fn blank_word(word: &str) -> String {
    let clean = without_user_info(word);
    let word = clean.as_deref().unwrap_or(word);
    let parts = word.split_inclusive(['?', '&', ';', ',']);
    parts.map(|part| without_value(part).unwrap_or_else(|| part.to_owned())).collect()
}

/// `name=value`, up to the delimiter that ends it.
fn without_value(part: &str) -> Option<String> {
    let (name, value) = part.split_once('=')?;
    let rest = value.trim_start_matches(|c: char| !c.is_whitespace() && !['?', '&', ';', ','].contains(&c));
    is_secret_parameter(name).then(|| format!("{name}={BLANK}{rest}"))
}

fn without_user_info(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{BLANK}@{host}{}", &rest[authority.len()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_blanked() {
        let mut value = json!({
            "keys": [{ "kty": "OKP", "x": "public", "d": "PRIVATE" }],
            "plan": { "token": "PRIVATE", "db_password": "PRIVATE", "Authorization": "Bearer PRIVATE" },
            "url": "https://user:PRIVATE@api.example/base?x=1",
            "signed": "https://a.example/k?X-Amz-Signature=PRIVATE&arch=amd64&access_token=PRIVATE#top",
            "cmdline": "quiet root_password=PRIVATE  url=https://u:PRIVATE@a.example/x psk=PRIVATE,b console=ttyS0\n",
        });
        blank_secrets(&mut value);
        let text = value.to_string();
        assert!(!text.contains("PRIVATE"), "{text}");
        assert_eq!(value["url"], "https://(removed)@api.example/base?x=1");
        assert_eq!(
            value["signed"],
            "https://a.example/k?X-Amz-Signature=(removed)&arch=amd64&access_token=(removed)"
        );
        assert_eq!(
            value["cmdline"],
            "quiet root_password=(removed)  url=https://(removed)@a.example/x psk=(removed),b console=ttyS0\n"
        );
    }

    #[test]
    fn what_is_none_stays_as_it_is() {
        let value = json!({
            "control_api_token_file": "/etc/sonic/token", "machine_token": "handle", "x": "public",
            "plain": "https://api.example/a@b", "cmdline": "BOOTIF=01-52-54 root=/dev/sda1  quiet",
            "metrics": "switch_agent_ports{phase=\"ready\"} 2\n# EOF\n",
        });
        let mut blanked = value.clone();
        blank_secrets(&mut blanked);
        assert_eq!(blanked, value);
    }
}
