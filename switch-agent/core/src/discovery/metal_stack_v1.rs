//! Dialect `metal-stack-v1`: what an unmodified metal-hammer asks, decided without I/O.
//!
//! metal-api v1 knows one client certificate and one HMAC key for the whole fleet, and lets their holder
//! speak for every machine. Here a machine gets credentials that only this switch takes, only on its port
//! ([`credentials`]); of each request just so much is read as to know which machine it is about
//! ([`message`], [`hmac`]), and that machine is pinned to the port at first sight.

pub mod config;
pub mod credentials;
pub mod hmac;
pub mod message;
pub mod procedure;

/// Path prefix of the REST side in the proxy's paths: what `metal_api_url` ends in.
pub const REST_PREFIX: &str = "/metal";

/// A machine's UUID (RFC 9562 section 4), as it was spelled. metal-api compares texts, and so does the pin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct MachineId(String);

impl MachineId {
    /// `None` where the text is no UUID of 36 characters.
    pub fn parse(text: &str) -> Option<MachineId> {
        const HYPHENS: [usize; 4] = [8, 13, 18, 23];
        let fits = |(at, byte): (usize, u8)| match HYPHENS.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        let uuid = text.len() == 36 && text.bytes().enumerate().all(fits);
        uuid.then(|| MachineId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MachineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uuids_are_machine_ids() {
        for good in ["00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF"] {
            assert_eq!(MachineId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeefff",
            "00112233445566778899aabbccddeeff0000",
            "00112233-4455-6677-8899-aabbccddeefg",
            "0011223-34455-6677-8899-aabbccddeeff",
            "../12233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(MachineId::parse(bad), None, "{bad}");
        }
    }
}
