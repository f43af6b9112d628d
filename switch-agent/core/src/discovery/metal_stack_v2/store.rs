//! The API's last good answers as they are kept on disk: of one API, with a checksum, checked again when
//! they are read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::facts::PartitionFacts;
use crate::name::PartitionId;

/// What is known of a partition, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub facts: PartitionFacts,
    /// Unix time in seconds of the last time the API said so.
    pub at: u64,
}

impl Answer {
    /// Age by the wall clock; an answer of the future is fresh.
    pub fn age(&self, now_s: u64) -> Duration {
        Duration::from_secs(now_s.saturating_sub(self.at))
    }
}

/// Answers by partition.
pub type Answers = BTreeMap<PartitionId, Answer>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// `https://host:port/base` of the API that said so.
    api: String,
    answers: Answers,
    sha256: String,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStore {
    #[error("it is no file of this agent")]
    Json(#[source] serde_json::Error),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is about another control API")]
    OtherApi,
    #[error("it holds a value that cannot be used")]
    Fact(#[from] super::facts::InvalidFact),
}

fn checksum(api: &str, answers: &Answers) -> serde_json::Result<String> {
    let sum = Sha256::digest(serde_json::to_vec(&(api, answers))?);
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The content of the file.
pub fn encode(api: &str, answers: &Answers) -> serde_json::Result<Vec<u8>> {
    let sha256 = checksum(api, answers)?;
    serde_json::to_vec_pretty(&File { api: api.to_owned(), answers: answers.clone(), sha256 })
}

/// The answers in a file's content.
pub fn decode(api: &str, bytes: &[u8]) -> Result<Answers, InvalidStore> {
    let file: File = serde_json::from_slice(bytes).map_err(InvalidStore::Json)?;
    if checksum(&file.api, &file.answers).map_err(InvalidStore::Json)? != file.sha256 {
        return Err(InvalidStore::Checksum);
    }
    if file.api != api {
        return Err(InvalidStore::OtherApi);
    }
    for answer in file.answers.values() {
        answer.facts.clone().checked()?;
    }
    Ok(file.answers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const API: &str = "https://api.example:443/base";

    fn answers(kernel: &str) -> Answers {
        let facts = PartitionFacts {
            kernel: Some(kernel.to_owned()),
            dns_servers: vec!["2001:db8::53".parse().unwrap()],
            ..PartitionFacts::default()
        };
        Answers::from([("p1".parse().unwrap(), Answer { facts, at: 100 })])
    }

    #[test]
    fn what_was_written_is_read_again() {
        let answers = answers("https://i/k");
        let bytes = encode(API, &answers).unwrap();
        assert_eq!(decode(API, &bytes).unwrap(), answers);
        let answer = answers.values().next().unwrap();
        assert_eq!(answer.age(107), Duration::from_secs(7));
        assert_eq!(answer.age(1), Duration::ZERO);
    }

    #[test]
    fn what_is_broken_or_foreign_is_not() {
        let text = String::from_utf8(encode(API, &answers("https://i/k")).unwrap()).unwrap();
        let changed = text.replace("https://i/k", "https://evil/k");
        assert!(matches!(decode(API, changed.as_bytes()), Err(InvalidStore::Checksum)));
        assert!(matches!(decode("https://other", text.as_bytes()), Err(InvalidStore::OtherApi)));
        assert!(matches!(decode(API, b"{}"), Err(InvalidStore::Json(_))));
        let bad = encode(API, &answers("https://i/k\n")).unwrap();
        assert!(matches!(decode(API, &bad), Err(InvalidStore::Fact(_))));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(API, &bytes);
        }
    }
}
