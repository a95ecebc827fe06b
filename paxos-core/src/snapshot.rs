//! Snapshots: a state at a slot, in place of the log up to there (the book's Low-Water Mark).
//!
//! Owns: [`SnapshotMeta`], what is known of an image without reading it, and [`ImageHasher`]. Knows no
//! files, no state machine and no peers; the port that keeps images is [`crate::port::SnapshotStore`].
//! Invariants: an image includes every slot up to its own and none above; images of one slot are equal
//! byte by byte on all replicas that applied the same log, so length and digest name one.
//! Source: protocol.md §14; Ongaro, "Consensus: Bridging Theory and Practice", §5.

use core::fmt;
use core::hash::Hasher;

use crate::ids::{Epoch, GroupId, LogClock, Slot};
use crate::membership::Membership;
use crate::trace::Digest;

/// 128 bits of an image's bytes: tells two images apart, and is no defence against malice.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ImageDigest(pub u128);

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Digests an image piece by piece, wherever it is cut.
#[derive(Clone, Debug)]
pub struct ImageHasher {
    digest: Digest,
    /// The last bytes that do not fill a word yet.
    rest: [u8; 8],
    bytes: u64,
}

impl ImageHasher {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self { digest: Digest::new(), rest: [0; 8], bytes: 0 }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.bytes % 8) as usize;
        self.bytes += bytes.len() as u64;
        if held > 0 {
            let take = bytes.len().min(8 - held);
            self.rest[held..held + take].copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if held + take < 8 {
                return;
            }
            self.digest.word(u64::from_le_bytes(self.rest));
        }
        let whole = bytes.len() / 8 * 8;
        self.digest.write(&bytes[..whole]);
        self.rest[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
    }

    /// How many bytes were taken in.
    pub const fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was taken in.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The digest of all that was taken in.
    pub fn finish(&self) -> ImageDigest {
        let mut digest = self.digest;
        let held = (self.bytes % 8) as usize;
        let mut rest = [0; 8];
        rest[..held].copy_from_slice(&self.rest[..held]);
        digest.word(u64::from_le_bytes(rest));
        digest.word(self.bytes);
        ImageDigest(digest.value())
    }
}

impl Default for ImageHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// A membership, and the first slot that it governs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Governs {
    /// The first slot.
    pub from: Slot,
    /// Who votes there and after it, until another one governs.
    pub membership: Membership,
}

/// What a snapshot is, without its image.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SnapshotMeta {
    /// The replicated log.
    pub group: GroupId,
    /// The last slot that it includes.
    pub slot: Slot,
    /// The highest clock of a batch in those slots (V1).
    pub clock: LogClock,
    /// Who governs the slots above, in rising order: those whose memberships stand in slots that it
    /// includes. Never empty; the first one governs the slot after `slot`.
    pub governs: Vec<Governs>,
    /// How many bytes its image has.
    pub bytes: u64,
    /// The digest of its image.
    pub digest: ImageDigest,
}

impl SnapshotMeta {
    /// The epoch of the newest membership in it.
    pub fn epoch(&self) -> Epoch {
        let newest = self.governs.last().expect("somebody governs every slot");
        newest.membership.epoch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_image_has_one_digest_wherever_it_is_cut() {
        let image: Vec<u8> = (0..100_u8).map(|byte| byte.wrapping_mul(37)).collect();
        let digest = |image: &[u8]| {
            let mut hasher = ImageHasher::new();
            hasher.update(image);
            hasher.finish()
        };
        for first in 0..image.len() {
            for second in [first, first + 1, first + 7, first + 8, image.len()] {
                let second = second.min(image.len());
                let mut hasher = ImageHasher::new();
                hasher.update(&image[..first]);
                hasher.update(&image[first..second]);
                hasher.update(&image[second..]);
                assert_eq!((hasher.finish(), hasher.len()), (digest(&image), 100));
            }
        }
        let lengths: BTreeSet<_> = (0..40).map(|length| digest(&vec![0; length])).collect();
        assert_eq!(lengths.len(), 40, "zeros at the end count");
        assert_ne!(digest(&image[1..]), digest(&image[..99]));
    }
}
