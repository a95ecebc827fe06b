//! How a command becomes bytes.
//!
//! Owns: [`CommandCodec`] and the default, [`Postcard`]. The protocol never looks into the bytes.
//! Invariant: what one replica encodes every replica decodes to the same command, in every release
//! that shares a cluster. Bytes that do not decode stop a node, as applying something else would
//! part the replicas.

use core::fmt;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Turns commands into bytes, on the caller's task, and back, on the task that applies.
pub trait CommandCodec<C>: Send + Sync + 'static {
    /// The bytes of a command.
    fn encode(&self, command: &C) -> Result<Bytes, CodecError>;

    /// The command of these bytes, which are shared with the log.
    fn decode(&self, bytes: Bytes) -> Result<C, CodecError>;

    /// Whether bytes that were just encoded can be read back. Asked before a command is proposed,
    /// because one that cannot would stand in the log for ever and stop every node. A codec that is
    /// known to read whatever it writes may answer without looking.
    fn check(&self, encoded: &Bytes) -> Result<(), CodecError> {
        self.decode(encoded.clone()).map(drop)
    }
}

/// Why a command was not encoded or decoded, in the codec's words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CodecError(pub String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}

/// Serde through postcard: compact, without field names. Adding a variant at the end of an enum is
/// compatible; changing a field is not. What needs the names of fields when it is read is refused
/// with an error: serde's attributes `tag`, `untagged`, `flatten` and `skip_serializing_if`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<C: Serialize + DeserializeOwned> CommandCodec<C> for Postcard {
    fn encode(&self, command: &C) -> Result<Bytes, CodecError> {
        match postcard::to_stdvec(command) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => Err(CodecError(error.to_string())),
        }
    }

    fn decode(&self, bytes: Bytes) -> Result<C, CodecError> {
        read(&bytes)
    }
}

/// Reads what postcard wrote, to the last byte.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes) {
        Ok((read, [])) => Ok(read),
        Ok((_, rest)) => Err(CodecError(format!("{} bytes follow the end", rest.len()))),
        Err(error) => Err(CodecError(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_command_survives_and_trailing_bytes_do_not() {
        let command = (7_u64, "name".to_owned());
        let bytes = Postcard.encode(&command).unwrap();
        assert_eq!(Postcard.decode(bytes.clone()), Ok(command));
        let mut longer = bytes.to_vec();
        longer.push(0);
        let refused: Result<(u64, String), _> = Postcard.decode(longer.into());
        assert!(refused.unwrap_err().0.contains("1 bytes follow"));
        let refused: Result<(u64, String), _> = Postcard.decode(bytes.slice(..2));
        assert!(refused.is_err());
    }

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    #[serde(tag = "op")]
    enum Tagged {
        Add { item: String },
    }

    /// A command with such an attribute was encoded, chosen, and then stopped every node at its slot.
    #[test]
    fn a_command_that_would_not_be_read_back_is_found_before_it_is_proposed() {
        let bytes = Postcard.encode(&Tagged::Add { item: "milk".to_owned() }).unwrap();
        let checked = CommandCodec::<Tagged>::check(&Postcard, &bytes);
        assert!(checked.is_err());
        let bytes = Postcard.encode(&7_u64).unwrap();
        assert_eq!(CommandCodec::<u64>::check(&Postcard, &bytes), Ok(()));
    }
}
