//! Secret records as JSON, without copies that nobody wipes. Never writes a secret anywhere but into the holder
//! that it returns.

use std::io;

use coffer_core::exact::Exact;
use coffer_core::secret::SecretBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::EngineError;

/// Counts bytes, so that the real buffer is allocated once: a growing one leaves unwiped copies behind.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `record` as JSON of at most `bytes_max` bytes; `what` names it in the refusal.
pub(crate) fn encode<T: Serialize>(
    record: &T,
    what: &str,
    bytes_max: usize,
) -> Result<SecretBytes, EngineError> {
    written(what, bytes_max, |to| Ok(serde_json::to_writer(to, record)?))
}

/// As [`encode`], for JSON whose numbers stay as they are.
pub(crate) fn encode_exact(value: &Exact, what: &str, bytes_max: usize) -> Result<SecretBytes, EngineError> {
    written(what, bytes_max, |mut to| value.write(&mut to))
}

fn written(
    what: &str,
    bytes_max: usize,
    write: impl Fn(&mut dyn io::Write) -> io::Result<()>,
) -> Result<SecretBytes, EngineError> {
    let unwritable = |_| EngineError::bad(format!("{what} cannot be written as JSON"));
    let mut counter = Counter(0);
    write(&mut counter).map_err(unwritable)?;
    let bytes = counter.0;
    if bytes > bytes_max {
        return Err(EngineError::TooLarge(format!("{what} has {bytes} bytes, the limit is {bytes_max}")));
    }
    let mut buffer = Vec::with_capacity(bytes);
    write(&mut buffer).map_err(unwritable)?;
    Ok(SecretBytes::new(buffer))
}

/// JSON that one of the two wrote, with its numbers as they are; `what` names it should it not decode.
pub(crate) fn decode_exact(bytes: &SecretBytes, what: &'static str) -> Result<Exact, EngineError> {
    Exact::parse(bytes.expose()).ok_or(EngineError::Corrupt(what))
}

/// The record that [`encode`] wrote; `what` names it should it not decode.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &SecretBytes, what: &'static str) -> Result<T, EngineError> {
    serde_json::from_slice(bytes.expose()).map_err(|_| EngineError::Corrupt(what))
}

/// Secret text within a record that is itself kept as a secret. For `#[serde(with = ...)]`.
pub(crate) mod secret_text {
    use coffer_core::secret::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &SecretString, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
        String::deserialize(from).map(SecretString::new)
    }
}

/// As [`secret_text`], for one that may be absent.
pub(crate) mod secret_text_option {
    use coffer_core::secret::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        match text {
            Some(text) => to.serialize_some(text.expose()),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
        Option::<String>::deserialize(from).map(|text| text.map(SecretString::new))
    }
}
