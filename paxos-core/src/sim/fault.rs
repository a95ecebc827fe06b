//! What can go wrong in a simulation, as data: the vocabulary of every plan and script.
//!
//! Owns: [`Fault`] and its parts. Draws nothing and does nothing: [`super::Plan`] draws faults, and
//! [`super::Cluster::suffer`] lets them happen.
//! Invariant: a fault names whom it strikes by id or by role, never by anything that only one
//! version of the protocol has, so that a plan means the same for every version.

use core::fmt;
use core::time::Duration;

use super::disk::DiskFault;
use super::kind::Kind;
use super::network::{Rule, Shape, Weather};
use crate::durable::Write;
use crate::ids::ReplicaId;

/// Whom a fault strikes, looked up when it happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// This replica.
    One(ReplicaId),
    /// Whoever believes that it leads; of several the one with the highest ballot.
    Leader,
    /// Somebody who does not lead.
    Follower,
    /// Anybody.
    Any,
}

/// What stands in a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each is the write of the same name")]
pub enum Fact {
    Any,
    Promised,
    Accepted,
    Chosen,
    Committed,
    Trimmed,
    Peer,
}

impl Fact {
    /// Every kind of fact, and any.
    pub const ALL: [Self; 7] = [
        Self::Any,
        Self::Promised,
        Self::Accepted,
        Self::Chosen,
        Self::Committed,
        Self::Trimmed,
        Self::Peer,
    ];

    /// Whether this write states such a fact.
    pub const fn is_in(self, write: &Write) -> bool {
        matches!(
            (self, write),
            (Self::Any, _)
                | (Self::Promised, Write::Promised(_))
                | (Self::Accepted, Write::Accepted { .. })
                | (Self::Chosen, Write::Chosen { .. })
                | (Self::Committed, Write::Committed(_))
                | (Self::Trimmed, Write::Trimmed(_))
                | (Self::Peer, Write::Peer { .. })
        )
    }
}

/// A moment in the life of a replica at which something may be made to happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cue {
    /// Such a fact is on its way to the disk.
    Writing(Fact),
    /// Such a fact is on the disk, and the replica has not been told.
    Written(Fact),
    /// Such a message has just left.
    Sending(Kind),
    /// Such a message is about to be heard.
    Hearing(Kind),
    /// The replica has begun to lead.
    Leading,
    /// Its storage has been read back, and nothing else has been done yet.
    Recovering,
}

/// Which ways of a replica are cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// It hears nobody and is heard by nobody.
    Both,
    /// It hears nobody.
    In,
    /// Nobody hears it.
    Out,
}

/// What strikes a replica at its [`Cue`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blow {
    /// It loses its power, and has it back after this time.
    Crash(Duration),
    /// It stands still.
    Pause(Duration),
    /// It is cut from all others.
    Cut(Side, Duration),
    /// Its ways to and from all but one other, drawn anew, are cut.
    CutAllButOne(Duration),
}

/// A blow that waits for its moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ambush {
    /// Whose moment it is.
    pub whom: Target,
    /// Which moment.
    pub cue: Cue,
    /// How many such moments pass first.
    pub after: u32,
    /// How often it strikes.
    pub times: u32,
    /// What happens.
    pub blow: Blow,
}

/// Something that goes wrong, or right again.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// A process loses its power, and has it back after this time.
    Crash(Target, Duration),
    /// Every process loses its power, and has it back within this time.
    CrashAll(Duration),
    /// A process stands still.
    Pause(Target, Duration),
    /// Something strikes as soon as its moment has come.
    Ambush(Ambush),
    /// The network is cut, on top of what is cut already.
    Cut(Shape),
    /// Messages from the first to the second are lost for a while.
    CutFor(ReplicaId, ReplicaId, Duration),
    /// All ways of a replica, or half of them, are cut for a while.
    Sever(Target, Side, Duration),
    /// All cuts are gone.
    Heal,
    /// Messages from the first to the second wait for the end of this time.
    Clog(ReplicaId, ReplicaId, Duration),
    /// The network gets better or worse.
    Weather(Weather),
    /// The way from the first to the second gets a weather of its own.
    Link(ReplicaId, ReplicaId, Weather),
    /// What the rule names is lost.
    Drop(Rule),
    /// What the rule names takes so much longer.
    Delay(Rule, Duration),
    /// Rules of loss and delay are gone.
    Pass,
    /// A clock runs at so many millionths of the true speed from here on; at 0 it stands still.
    ClockRate(ReplicaId, u32),
    /// A wall clock is set, by so many milliseconds, forward or back.
    WallClock(ReplicaId, i64),
    /// A process loses its power and its directory, and starts with an empty one. Where that would
    /// take more than a minority of the disks, or one whose life not everybody remembers, it loses
    /// its power only.
    Wipe(Target, Duration),
    /// A disk does something wrong, or is well again.
    Disk(ReplicaId, DiskFault),
    /// Whoever leads is asked to make way for this replica.
    Transfer(ReplicaId),
    /// Whoever leads is asked to change the membership, in a way that these bits draw from what it is.
    Change(u64),
}

/// What a fault is, without its parts: to count.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each is the fault of the same name")]
pub enum FaultKind {
    Crash,
    CrashAll,
    Pause,
    Ambush,
    Cut,
    CutFor,
    Sever,
    Heal,
    Clog,
    Weather,
    Link,
    Drop,
    Delay,
    Pass,
    ClockRate,
    WallClock,
    Wipe,
    Disk,
    Transfer,
    Change,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::Crash,
        Self::CrashAll,
        Self::Pause,
        Self::Ambush,
        Self::Cut,
        Self::CutFor,
        Self::Sever,
        Self::Heal,
        Self::Clog,
        Self::Weather,
        Self::Link,
        Self::Drop,
        Self::Delay,
        Self::Pass,
        Self::ClockRate,
        Self::WallClock,
        Self::Wipe,
        Self::Disk,
        Self::Transfer,
        Self::Change,
    ];

    /// The kind of this fault.
    pub const fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Crash(..) => Self::Crash,
            Fault::CrashAll(_) => Self::CrashAll,
            Fault::Pause(..) => Self::Pause,
            Fault::Ambush(_) => Self::Ambush,
            Fault::Cut(_) => Self::Cut,
            Fault::CutFor(..) => Self::CutFor,
            Fault::Sever(..) => Self::Sever,
            Fault::Heal => Self::Heal,
            Fault::Clog(..) => Self::Clog,
            Fault::Weather(_) => Self::Weather,
            Fault::Link(..) => Self::Link,
            Fault::Drop(_) => Self::Drop,
            Fault::Delay(..) => Self::Delay,
            Fault::Pass => Self::Pass,
            Fault::ClockRate(..) => Self::ClockRate,
            Fault::WallClock(..) => Self::WallClock,
            Fault::Wipe(..) => Self::Wipe,
            Fault::Disk(..) => Self::Disk,
            Fault::Transfer(_) => Self::Transfer,
            Fault::Change(_) => Self::Change,
        }
    }

    /// Its place in [`FaultKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_place() {
        for (place, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
        }
    }
}
