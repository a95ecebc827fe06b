//! The newtypes that name things: replicas, groups, slots, time.
//!
//! Owns: identity and position, each as its own type, with checked arithmetic. Knows no protocol.
//! A naked integer stands in no other public signature of this crate, and `Slot + Slot` does not
//! compile:
//!
//! ```compile_fail
//! use paxos_core::ids::Slot;
//! let _ = Slot::new(1) + Slot::new(2);
//! ```

use core::fmt;
use core::time::Duration;

/// Names one replica within its cluster. Chosen by the operator, from 1 upwards, and never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplicaId(u16);

impl ReplicaId {
    /// The id with the given number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.0)
    }
}

/// Names a cluster: 16 bytes drawn at random when it is created, the same on all its replicas.
///
/// A message of another cluster is dropped, so that two clusters never mix, whatever the addresses
/// say.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterId(u128);

impl ClusterId {
    /// The id with the given bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as written in files and on the wire.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names one of several replicated logs that share a journal and a transport.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupId(u64);

impl GroupId {
    /// The group with the given number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// One life of a replica: a boot counter, durable before its first use, and a nonce.
///
/// Votes are counted by (replica, incarnation). The counter rises with every start on the same
/// directory. The upper half of the nonce is drawn when a directory is first started and stays with
/// it, so that a directory that was wiped and formatted anew is told from its predecessor however
/// often it is started; the lower half is drawn at each start and tells two lives apart that a
/// copied directory gave the same counter.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation {
    boot: u32,
    nonce: u32,
}

impl Incarnation {
    /// The life that began with start number `boot`, told apart by `nonce`.
    pub const fn new(boot: u32, nonce: u32) -> Self {
        Self { boot, nonce }
    }

    /// How often the directory was started, from 1.
    pub const fn boot(self) -> u32 {
        self.boot
    }

    /// The random parts: the directory's above, the life's below.
    pub const fn nonce(self) -> u32 {
        self.nonce
    }

    /// The first life of a directory.
    pub const fn first(nonce: u32) -> Self {
        Self { boot: 1, nonce }
    }

    /// The life that follows this one on the same directory.
    #[must_use]
    pub const fn following(self, nonce: u32) -> Self {
        let boot = self.boot.checked_add(1).expect("starts are never exhausted");
        Self { boot, nonce: self.nonce & 0xffff_0000 | nonce & 0xffff }
    }

    /// Whether this life may follow `earlier`: the same directory, started later.
    pub const fn succeeds(self, earlier: Self) -> bool {
        self.nonce >> 16 == earlier.nonce >> 16 && self.boot > earlier.boot
    }

    /// Both parts as one number: the counter in the upper half.
    pub const fn bits(self) -> u64 {
        (self.boot as u64) << 32 | self.nonce as u64
    }

    /// The inverse of [`Incarnation::bits`].
    pub const fn from_bits(bits: u64) -> Self {
        Self { boot: (bits >> 32) as u32, nonce: bits as u32 }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.boot, self.nonce)
    }
}

/// A position in the replicated log. The first value stands in slot 1; [`Slot::ZERO`] is before
/// every value and means "nothing yet" where a prefix is named by its last slot.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(u64);

impl Slot {
    /// Before the first slot: the name of the empty prefix.
    pub const ZERO: Self = Self(0);
    /// The slot of the first value.
    pub const FIRST: Self = Self(1);
    /// Beyond every slot that can be used.
    pub const MAX: Self = Self(u64::MAX);

    /// The slot with the given number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The slot after this one.
    ///
    /// # Panics
    ///
    /// After slot `u64::MAX`: at a million slots a second that takes half a million years.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("slots are never exhausted"))
    }

    /// The slot before this one; the slot before [`Slot::ZERO`] is [`Slot::ZERO`].
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The slot `count` after this one, at most [`Slot::MAX`].
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many slots this one is after `earlier`; zero if it is not after it.
    pub const fn distance_from(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Numbers the memberships of a cluster: 1 is the first, each change adds one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(u32);

impl Epoch {
    /// The first membership's number.
    pub const FIRST: Self = Self(1);

    /// The epoch with the given number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number of the membership that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("memberships are never exhausted"))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// Names a client, or one life of one: unique in the cluster for ever.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(u64);

impl ClientId {
    /// The client with the given number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Numbers the requests of one client, from 1; never reused by it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestNumber(u64);

impl RequestNumber {
    /// The request with the given number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as written in files and on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How much a replica is preferred as leader: the higher the more. A tunable and a hint; no safety
/// property depends on it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(u8);

impl Priority {
    /// The priority with the given number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The number, as written on the wire.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}", self.0)
    }
}

/// Names a session: 128 bits, given by whoever opens it, and never used for another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId {
    // Two halves, as a whole would make every command that names a session larger by its alignment.
    high: u64,
    low: u64,
}

impl SessionId {
    /// The id with the given bits. They must be unique in the cluster for ever: drawn at random, or
    /// made of something that is unique.
    pub const fn new(bits: u128) -> Self {
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// The bits, as written in files and on the wire.
    pub const fn bits(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:032x}", self.bits())
    }
}

/// A reading of the host's monotonic clock, in nanoseconds since an arbitrary origin.
///
/// Serves timers only; no safety property depends on it but those of leases, where a membership has
/// them. The host never lets it go back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    /// The arbitrary origin.
    pub const ZERO: Self = Self(0);

    /// The reading `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This reading plus a duration; saturates after 584 years.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_nanos(duration)))
    }

    /// This reading minus a duration; zero at the least.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_nanos(duration)))
    }

    /// How long after `earlier` this reading is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// As many nanoseconds as a reading can count.
const fn whole_nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos() as u64)
}

/// The leader's wall clock, in milliseconds since 1970, as written into a batch.
///
/// Sessions, time-to-live and leases of applications expire by it and by nothing else. A new batch
/// never has a lower clock than those before it; one that a later leader adopts keeps its own, so
/// whoever expires by the clock keeps the highest so far in the replicated state (protocol.md §3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogClock(u64);

impl LogClock {
    /// The clock reading `millis` milliseconds after the start of 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start of 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }
}

/// How long a session lasts after its last use, in milliseconds of the clock of batches.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionTtl(u64);

impl SessionTtl {
    /// A time to live of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A duration in whole milliseconds, the part of one cut off; saturates.
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }
}
