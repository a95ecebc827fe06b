//! Who votes, who listens, and by which quorums.
//!
//! Owns: [`Membership`], the value that says so for the slots it governs; [`LeaseTerms`]; what may be
//! changed in it, in a module of its own.
//! Invariants: ids are unique; voters and observers are disjoint; the quorums intersect; who is to
//! vote later observes.
//! Source: protocol.md §4; Lamport, Malkhi, Zhou, "Reconfiguring a State Machine" (the window α).

mod change;

pub use change::{Change, ChangeError};

use core::fmt;
use core::time::Duration;

use crate::agreement::MembershipDigest;
use crate::ids::{Epoch, ReplicaId};
use crate::quorum::{Named, QuorumError, QuorumRule, QuorumSystem, VOTERS_MAX, VoterSet};

/// The window of slots in flight that [`Membership::voters_only`] uses.
pub const WINDOW_DEFAULT: u32 = 256;
/// The largest window: an acceptor holds at most this many undecided values in memory.
pub const WINDOW_MAX: u32 = 65_536;
/// The most observers of a membership.
pub const OBSERVERS_MAX: usize = 64;
/// The most addresses, and the most key pins, of one member.
pub const ADDRESSES_MAX: usize = 8;
/// The most bytes of one address: twice what a DNS name and a port need.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// SHA-256 of a replica's public key (its subject public key info).
pub type KeyPin = [u8; 32];

/// A replica as its membership knows it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: ReplicaId,
    /// Where it can be reached: `host:port`, resolved at each attempt. May be empty where the
    /// transport needs none.
    pub addresses: Vec<String>,
    /// The keys that it may authenticate with. May be empty where the transport needs none.
    pub keys: Vec<KeyPin>,
}

impl Member {
    /// A member without addresses and keys, for transports that need none.
    pub fn new(id: ReplicaId) -> Self {
        Self { id, addresses: Vec::new(), keys: Vec::new() }
    }
}

/// An observer that is to vote as soon as it has caught up.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Joining {
    /// The observer.
    pub id: ReplicaId,
    /// The voter that leaves at the same time, if one is to.
    pub replaces: Option<ReplicaId>,
}

/// What a lease is worth: for how long a voter that confirmed a leader promises nothing to others, and
/// how far clocks may be off. Protocol.md §12 says what rests on it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LeaseTerms {
    nanos: u64,
    drift_ppm: u32,
}

impl LeaseTerms {
    /// Leases of this duration, from 1 ms to 60 s and at most the election timeout of any replica, if
    /// no clock's rate ever differs from that of true time by more than `drift_ppm` millionths, above
    /// zero and below a million. What counts is the clock as the system shows it, and not the crystal
    /// below: a time daemon that slews it adds its rate, which for some is a tenth (100,000) unless
    /// they are told otherwise. What virtual machines and their hosts do to a clock is for their owner
    /// to know. A clock that stands still while the machine is suspended keeps no bound.
    pub const fn new(duration: Duration, drift_ppm: u32) -> Option<Self> {
        let nanos = duration.as_nanos();
        if nanos < 1_000_000 || nanos > 60_000_000_000 || drift_ppm == 0 || drift_ppm >= 1_000_000 {
            return None;
        }
        Some(Self { nanos: nanos as u64, drift_ppm })
    }

    /// For how long a voter grants.
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// How far clocks may be off, in millionths of true time.
    pub const fn drift_ppm(self) -> u32 {
        self.drift_ppm
    }

    /// For how long the leader relies on a grant, from when it asked.
    pub const fn held(self) -> Duration {
        let drift = self.drift_ppm as u64;
        // Rounded down; 60 s in nanoseconds times a million fits.
        let nanos = self.nanos as u128 * (1_000_000 - drift) as u128 / (1_000_000 + drift) as u128;
        Duration::from_nanos(nanos as u64)
    }
}

/// Who votes and who listens from some slot on. Immutable; a change is a new one with the next
/// epoch.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Membership {
    epoch: Epoch,
    voters: Vec<Member>,
    observers: Vec<Member>,
    quorums: QuorumSystem,
    window: u32,
    lease: Option<LeaseTerms>,
    joining: Vec<Joining>,
}

/// Why a membership was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MembershipError {
    /// The quorum rule does not fit the voters.
    Quorum {
        /// Why.
        error: QuorumError,
        /// The voters by their places, from 0: in rising order of their ids.
        voters: Vec<ReplicaId>,
    },
    /// This id stands in it twice.
    Duplicate(ReplicaId),
    /// The window is zero or above [`WINDOW_MAX`].
    Window(u32),
    /// More observers, addresses or keys than the bounds allow.
    TooMany,
    /// An address of this member is longer than [`ADDRESS_BYTES_MAX`].
    Address(ReplicaId),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum { error, voters } => {
                let name = |place: usize| match voters.get(place) {
                    Some(id) => id.to_string(),
                    None => format!("place {place}"),
                };
                Named { error, name: &name }.fmt(f)
            }
            Self::Duplicate(id) => write!(f, "{id} stands in the membership twice"),
            Self::Window(window) => {
                write!(f, "the window is 1 to {WINDOW_MAX} slots, not {window}")
            }
            Self::TooMany => write!(
                f,
                "at most {VOTERS_MAX} voters, {OBSERVERS_MAX} observers, and {ADDRESSES_MAX} \
                 addresses and keys for each"
            ),
            Self::Address(id) => {
                write!(f, "an address of {id} is longer than {ADDRESS_BYTES_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for MembershipError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Quorum { error, .. } => Some(error),
            Self::Duplicate(_) | Self::Window(_) | Self::TooMany | Self::Address(_) => None,
        }
    }
}

impl Membership {
    /// The membership with all its parts given. Members are sorted by id; the places in `rule` are
    /// those of `voters` as given, and move along.
    pub fn new(
        epoch: Epoch,
        mut voters: Vec<Member>,
        mut observers: Vec<Member>,
        rule: QuorumRule,
        window: u32,
    ) -> Result<Self, MembershipError> {
        let fits = |member: &Member| {
            member.addresses.len() <= ADDRESSES_MAX && member.keys.len() <= ADDRESSES_MAX
        };
        if observers.len() > OBSERVERS_MAX || !voters.iter().chain(&observers).all(fits) {
            return Err(MembershipError::TooMany);
        }
        let long = |member: &&Member| {
            let mut addresses = member.addresses.iter();
            addresses.any(|address| address.len() > ADDRESS_BYTES_MAX)
        };
        if let Some(member) = voters.iter().chain(&observers).find(long) {
            return Err(MembershipError::Address(member.id));
        }
        if window == 0 || window > WINDOW_MAX {
            return Err(MembershipError::Window(window));
        }
        let rule = sort_with_rule(&mut voters, rule);
        observers.sort_by_key(|member| member.id);
        let quorums = QuorumSystem::new(voters.len(), rule).map_err(|error| {
            let voters = voters.iter().map(|member| member.id).collect();
            MembershipError::Quorum { error, voters }
        })?;
        let mut ids: Vec<_> = voters.iter().chain(&observers).map(|member| member.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(MembershipError::Duplicate(pair[0]));
        }
        let (lease, joining) = (None, Vec::new());
        Ok(Self { epoch, voters, observers, quorums, window, lease, joining })
    }

    /// A first membership: these voters, majorities, the default window.
    pub fn majority(voters: Vec<Member>) -> Result<Self, MembershipError> {
        Self::new(Epoch::FIRST, voters, Vec::new(), QuorumRule::Majority, WINDOW_DEFAULT)
    }

    /// [`Membership::majority`] for transports that need neither addresses nor keys.
    pub fn voters_only(
        voters: impl IntoIterator<Item = ReplicaId>,
    ) -> Result<Self, MembershipError> {
        Self::majority(voters.into_iter().map(Member::new).collect())
    }

    /// The same members and quorums, with leases: a leader that holds one serves reads without asking.
    #[must_use]
    pub fn with_lease(mut self, terms: LeaseTerms) -> Self {
        self.lease = Some(terms);
        self
    }

    /// The terms of its leases, if it has any.
    pub fn lease(&self) -> Option<LeaseTerms> {
        self.lease
    }

    /// The same membership in which these observers are to vote once they have caught up. Those that
    /// do not observe in it are left out.
    #[must_use]
    pub fn with_joining(mut self, joining: impl IntoIterator<Item = Joining>) -> Self {
        self.joining = joining.into_iter().collect();
        self.joining.retain(|joining| self.observers.iter().any(|member| member.id == joining.id));
        self.joining.sort_unstable();
        self.joining.dedup_by_key(|joining| joining.id);
        self
    }

    /// The observers that are to vote, in rising order of their ids.
    pub fn joining(&self) -> &[Joining] {
        &self.joining
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Those who vote, in rising order of their ids.
    pub fn voters(&self) -> &[Member] {
        &self.voters
    }

    /// Those who receive everything and vote on nothing, in rising order of their ids.
    pub fn observers(&self) -> &[Member] {
        &self.observers
    }

    /// Voters, then observers.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(&self.observers)
    }

    /// Its quorums.
    pub fn quorums(&self) -> &QuorumSystem {
        &self.quorums
    }

    /// α: how many slots may be in flight, and how many slots after its own a membership begins to
    /// govern.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// What all its members must agree on, in six bytes.
    pub fn digest(&self) -> MembershipDigest {
        MembershipDigest::of(self)
    }

    /// The place of `id` among the voters.
    pub fn voter_index(&self, id: ReplicaId) -> Option<usize> {
        self.voters.binary_search_by_key(&id, |member| member.id).ok()
    }

    /// Whether `id` votes or observes.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.members().any(|member| member.id == id)
    }

    /// The voters for whom this holds.
    pub fn voters_where(&self, holds: impl Fn(ReplicaId) -> bool) -> VoterSet {
        let places = self.voters.iter().enumerate().filter(|(_, member)| holds(member.id));
        places.map(|(place, _)| place).collect()
    }

    /// Everybody who votes.
    pub fn all_voters(&self) -> VoterSet {
        VoterSet::first(self.voters.len())
    }
}

/// Weights and sets follow the order in which the voters were given, so they move along.
fn sort_with_rule(voters: &mut Vec<Member>, rule: QuorumRule) -> QuorumRule {
    let mut sorted: Vec<(usize, Member)> = voters.drain(..).enumerate().collect();
    sorted.sort_by_key(|(_, member)| member.id);
    let mut places = vec![0; sorted.len()];
    for (place, (given, _)) in sorted.iter().enumerate() {
        places[*given] = place;
    }
    voters.extend(sorted.into_iter().map(|(_, member)| member));
    rule.reordered(&places)
}
