//! What the releases of the members know: each node tells the others, and no other learns what it could not read.
//!
//! Owns: [`Releases`], what peers have said of their releases; [`RaiseError`]; the rules by which [`Driver`]
//! tells and asks. Knows no log and no state machine.
//! Invariants: (1) what a peer said counts for the life in which it said it; (2) a peer that says nothing
//! is of a release before this was said, and is asked ever more seldom; (3) what is optional between nodes
//! is sent to peers alone that said that they know it.
//! Source: protocol.md, Releases; etcd's cluster version, which a leader raises once every member runs it.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use paxos_core::ids::{Incarnation, ReplicaId, Time};
use paxos_core::port::Lane;
use paxos_core::value::Level;

use crate::driver::Driver;
use crate::error::ClientError;
use crate::frame::HostFrame;
use crate::waiters::Waiter;

/// Digests of states are compared.
pub(crate) const DIGESTS: u64 = 1;
/// What this release knows of all that is optional between nodes.
const FEATURES: u64 = DIGESTS;
/// The pause between two questions grows to so many times the first.
const PAUSE_MAX: u32 = 64;

/// What a peer said of its release.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Said {
    features: u64,
    known: Level,
}

/// When a peer is asked again that has not answered.
#[derive(Clone, Copy, Debug)]
struct Question {
    at: Time,
    pause: Duration,
}

/// What is known of the releases of peers in their present lives.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    said: BTreeMap<ReplicaId, Said>,
    questions: BTreeMap<ReplicaId, Question>,
}

impl Releases {
    /// Whether the peer said that it knows this.
    pub(crate) fn knows(&self, peer: ReplicaId, feature: u64) -> bool {
        self.said.get(&peer).is_some_and(|said| said.features & feature == feature)
    }

    /// Up to which level each of these knows the log, as far as it has said so.
    pub(crate) fn levels(&self, peers: &[ReplicaId]) -> Vec<(ReplicaId, Option<Level>)> {
        peers.iter().map(|peer| (*peer, self.said.get(peer).map(|said| said.known))).collect()
    }

    /// Another life of this peer is linked: it may be of another release.
    fn begins(&mut self, peer: ReplicaId, question: Question) {
        self.said.remove(&peer);
        self.questions.insert(peer, question);
    }

    fn has_said(&mut self, peer: ReplicaId, said: Said) -> bool {
        self.questions.remove(&peer);
        self.said.insert(peer, said) != Some(said)
    }

    /// Whom to ask now; the next question to each comes after twice the pause.
    fn due(&mut self, now: Time, pause_max: Duration) -> Vec<ReplicaId> {
        let mut due = Vec::new();
        for (peer, question) in &mut self.questions {
            if question.at <= now {
                question.pause = (question.pause * 2).min(pause_max);
                question.at = now.after(question.pause);
                due.push(*peer);
            }
        }
        due
    }

    /// The link to this peer fell: there is nobody to ask. What it said stays, until it begins another life.
    pub(crate) fn on_down(&mut self, peer: ReplicaId) {
        self.questions.remove(&peer);
    }

    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.questions.values().map(|question| question.at).min()
    }
}

/// Why the log was not raised by [`crate::Node::raise`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RaiseError {
    /// This node's own state machine does not know that level.
    NotKnown {
        /// The highest that it knows.
        known: u32,
    },
    /// These members run a release that does not know it, with what they said that they know; or they were
    /// not heard since this node started, and nobody knows what they run.
    Members(Vec<(ReplicaId, Option<Level>)>),
    /// The command that raises it was refused, or nobody knows what came of it: it may be raised all the same,
    /// which [`crate::Client::level`] shows.
    Client(ClientError),
}

impl fmt::Display for RaiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKnown { known } => {
                write!(f, "the state machine of this node knows levels up to {known}")
            }
            Self::Members(members) => {
                f.write_str("not every member runs a release that knows it:")?;
                for (place, (member, known)) in members.iter().enumerate() {
                    f.write_str(if place == 0 { " " } else { "; " })?;
                    match known {
                        Some(known) => write!(f, "{member} knows level {known}")?,
                        None => write!(f, "{member} has not said what it knows")?,
                    }
                }
                f.write_str("; upgrade them first, or remove those that are gone for good")
            }
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RaiseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(error) => Some(error),
            Self::NotKnown { .. } | Self::Members(_) => None,
        }
    }
}

/// To what the log can be raised: the library's number by as much as all of these know, the state machine's to
/// `wanted`. Rule U1.
pub(crate) fn target(
    wanted: u32,
    own: Level,
    peers: Vec<(ReplicaId, Option<Level>)>,
) -> Result<Level, RaiseError> {
    if wanted > own.machine {
        return Err(RaiseError::NotKnown { known: own.machine });
    }
    let mut library = own.library;
    let mut lacking = Vec::new();
    for (peer, known) in peers {
        match known {
            Some(known) if known.machine >= wanted => library = library.min(known.library),
            Some(_) | None => lacking.push((peer, known)),
        }
    }
    if lacking.is_empty() {
        Ok(Level { library, machine: wanted })
    } else {
        Err(RaiseError::Members(lacking))
    }
}

impl<W: Waiter> Driver<W> {
    /// A life of a peer is linked that was not before: it is told what this release knows, and asked.
    pub(crate) fn greet(&mut self, peer: ReplicaId, now: Time) {
        let pause = self.config.election_timeout;
        self.releases.begins(peer, Question { at: now.after(pause), pause });
        self.announce(peer, true);
    }

    /// Asks those again that have not answered.
    pub(crate) fn greet_again(&mut self, now: Time) {
        for peer in self.releases.due(now, self.config.election_timeout * PAUSE_MAX) {
            self.announce(peer, true);
        }
    }

    fn announce(&mut self, to: ReplicaId, asks: bool) {
        let known = self.shared.known;
        let frame = HostFrame::Announce { origin: self.life, features: FEATURES, known, asks };
        // What is lost is asked for again.
        let _ = self.send_frame(to, Lane::Control, &frame);
    }

    /// A peer says what its release knows.
    pub(crate) fn on_announced(
        &mut self,
        from: ReplicaId,
        origin: Incarnation,
        (features, known): (u64, Level),
        asks: bool,
    ) {
        // Of an earlier life: the present one may run another release.
        if self.lives.get(&from) != Some(&origin) {
            return;
        }
        if self.releases.has_said(from, Said { features, known }) {
            tracing::debug!(replica = %self.id, %from, features, %known, "heard of a release");
            self.timer.published = None;
        }
        if asks {
            self.announce(from, false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const PEER: ReplicaId = ReplicaId::new(2);

    fn level(library: u16, machine: u32) -> Level {
        Level { library, machine }
    }

    /// **U1** The log is raised by a command in a slot, which names a level; a node proposes that only when every
    /// member has told it, in the life in which that member was last linked, that it knows the level.
    #[test]
    fn u1_the_log_is_raised_to_what_every_member_knows() {
        let peers = |known: [Option<Level>; 2]| {
            [2, 3].map(ReplicaId::new).into_iter().zip(known).collect::<Vec<_>>()
        };
        let own = level(4, 7);
        let of = |wanted, known| target(wanted, own, peers(known));
        assert_eq!(of(7, [Some(level(4, 7)), Some(level(5, 9))]), Ok(level(4, 7)));
        assert_eq!(of(6, [Some(level(3, 7)), Some(level(5, 6))]), Ok(level(3, 6)));
        assert_eq!(of(8, [Some(level(9, 9)); 2]), Err(RaiseError::NotKnown { known: 7 }));
        let old = Some(level(4, 6));
        let lacking = RaiseError::Members(vec![(PEER, old)]);
        assert_eq!(of(7, [old, Some(level(4, 7))]), Err(lacking));
        let unheard = RaiseError::Members(vec![(PEER, None)]);
        assert!(unheard.to_string().contains("has not said"), "{unheard}");
        assert_eq!(of(1, [None, Some(level(4, 7))]), Err(unheard));
        assert_eq!(target(3, own, Vec::new()), Ok(level(4, 3)), "alone it decides alone");
    }

    /// **U5** A frame that not every release knows is sent to a peer only after that peer has said, in its
    /// present life, that it knows it.
    #[test]
    fn u5_what_a_peer_said_counts_for_its_life() {
        let mut releases = Releases::default();
        let second = Duration::from_secs(1);
        let question = || Question { at: Time::ZERO.after(second), pause: second };
        let said = Said { features: DIGESTS, known: level(0, 3) };
        releases.begins(PEER, question());
        assert!(!releases.knows(PEER, DIGESTS));
        assert_eq!(releases.levels(&[PEER]), [(PEER, None)]);
        assert!(releases.has_said(PEER, said));
        assert!(!releases.has_said(PEER, said), "that is no news");
        assert!(releases.knows(PEER, DIGESTS) && !releases.knows(PEER, 2));
        releases.on_down(PEER);
        assert_eq!(releases.levels(&[PEER]), [(PEER, Some(level(0, 3)))]);
        releases.begins(PEER, question());
        assert!(!releases.knows(PEER, DIGESTS), "it may have been started with another release");
        assert_eq!(releases.levels(&[PEER]), [(PEER, None)]);
    }

    #[test]
    fn a_peer_that_says_nothing_is_asked_ever_more_seldom() {
        let mut releases = Releases::default();
        let (second, most) = (Duration::from_secs(1), Duration::from_secs(64));
        releases.begins(PEER, Question { at: Time::ZERO.after(second), pause: second });
        let mut asked = Vec::new();
        for now in 0..400 {
            let now_at = Time::ZERO.after(Duration::from_secs(now));
            if releases.due(now_at, most) == [PEER] {
                asked.push(now);
            }
        }
        assert_eq!(asked, [1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383]);
        releases.on_down(PEER);
        assert_eq!(releases.wake_at(), None);
    }
}
