//! Coverage marks: the rare and telling things that a long run must have met to have shown anything.
//!
//! Owns: [`Mark`] and [`Marks`], their counts. The events of a run, the messages that leave and what replicas
//! say of themselves are looked at from outside; no production code knows of marks.
//! Invariants: a mark is counted where the thing happened, never where it was meant to; looking
//! changes nothing.
//! Source: coverage marks as in rust-analyzer; the list of `research/reliability.md`, section 3.2.

mod watch;

use core::fmt;

pub(super) use watch::Watch;

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident => $words:literal),* $(,)?) => {
        /// One thing that a long run must meet.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Mark { $($(#[doc = $doc])+ $name),* }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What happened, in words.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => $words),* }
            }
        }
    };
}

marks! {
    /// The values of one reign were adopted from more than one lower ballot.
    AdoptedFromSeveral => "values of several ballots adopted by one leader",
    /// Two values had been proposed in the slot, and the leader had to take the higher ballot's.
    AdoptedAmongSeveral => "value of the highest of several ballots adopted",
    /// A slot was proposed at three ballots or more before it was chosen.
    ThirdBallot => "slot proposed at a third ballot",
    /// A no-op is chosen.
    NoopChosen => "no-op chosen in a gap",
    /// A Promise was lost, and the same acceptor promised the same ballot again.
    PromiseRetried => "Promise lost, then sent again",
    /// A promise came in more than one page.
    PromisePaged => "Promise in pages",
    /// A promise named a prefix that the candidate did not have.
    PromiseAhead => "Promise names a longer prefix",
    /// A promise named a value as chosen beyond a gap.
    PromiseChosen => "Promise names a chosen value",
    /// A leader stopped leading with values in flight, and without a crash.
    DeposedInFlight => "leader deposed with values in flight",
    /// A leader lost its power with values in flight.
    CrashedInFlight => "leader crashed with values in flight",
    /// A campaign ended without a reign.
    CampaignLost => "campaign lost",
    /// A candidate lost its power.
    CandidateCrashed => "candidate crashed",
    /// Two replicas believe that they lead.
    TwoLeaders => "two leaders at once",
    /// A leader stands still.
    LeaderPaused => "leader paused",
    /// A value was chosen before the disk of its leader held it.
    LeaderVotedLate => "self-vote durable after the remote quorum",
    /// A value was chosen, and a slot before it was not.
    ChosenOutOfOrder => "value chosen beyond a gap",
    /// A value was recorded as chosen by a replica that had voted for another, or for none.
    LearnedWithoutVote => "chosen value learned without a vote",
    /// Several values left in one Accept.
    AcceptOfSeveral => "Accept of several slots",
    /// A slow acceptor or candidate was told of a higher ballot.
    Rejected => "Reject sent",
    /// A replica read its log to apply it after a start.
    LogReplayed => "log replayed after a restart",
    /// A replica read its log for a peer.
    LogServed => "Fetch served from the log",
    /// A Fetch was answered with nothing, as the slot is trimmed.
    FetchedNothing => "Fetch below the trim",
    /// A message of a life that is over, or not yet known, was dropped.
    StaleLife => "message of a stale life dropped",
    /// A message of a ballot that is over, or a vote counted before, was dropped.
    StaleBallot => "stale vote or ballot dropped",
    /// An Accept beyond twice the window was left for later.
    BeyondWindow => "Accept beyond the window left",
    /// A wiped directory was refused.
    LifeRefused => "incarnation refused",
    /// Commands were refused by a replica that knows who leads.
    NotLeaderHint => "refused: another leads",
    /// Commands were refused by a replica that knows of no leader.
    NotLeader => "refused: nobody leads",
    /// Commands were refused, as the window of slots was full.
    WindowFull => "refused: the window of slots is full",
    /// Commands were refused, as the window had slots and no bytes left.
    WindowBytesFull => "refused: the window of bytes is full",
    /// A round of Confirm stood, and served several reads.
    ReadsShared => "several reads at one read point",
    /// A leader stopped leading, and reads waited.
    ReadsLost => "reads lost with the leader",
    /// A read waited for slots of earlier ballots to be committed.
    ReadsWaited => "reads wait for what earlier ballots chose",
    /// A quorum read was given its point by a replica that knew of no leader.
    LeaderlessRead => "quorum read without a leader",
    /// A quorum read was given a point above what its replica had committed when it was asked.
    QuorumReadWaited => "quorum read waits for its slot",
    /// A quorum read was given up, as too few voters answered.
    QuorumReadUnreached => "quorum read without a quorum",
    /// A quorum read was given up, as nobody settled its slot.
    QuorumReadUnsettled => "quorum read of a slot that is not settled",
    /// A read was served by a lease.
    LeaseRead => "read served by a lease",
    /// A leader gave up its lease.
    LeaseReleased => "lease given up",
    /// A Prepare was left unanswered until a grant ended.
    PrepareWithheld => "Prepare withheld for a grant",
    /// A leader made way, and promised the ballot of the one that it made way for.
    TransferDone => "leader handed over",
    /// A leader made way, nobody took over in time, and it led on.
    TransferGivenUp => "handing over given up",
    /// A replica heard that a leader makes way, and did not follow that leader or could not lead.
    TransferIgnored => "stale Transfer ignored",
    /// Commands were refused for a while by a leader that makes way.
    Transferring => "refused: the leader makes way",
    /// A snapshot was installed by a replica that led, and leads on or not.
    InstalledByLeader => "snapshot installed by a leader",
    /// A snapshot was whole when everything in it was committed already.
    InstallOvertaken => "snapshot overtaken by the log",
    /// An image was gone on with that an earlier life had begun to receive.
    SnapshotResumed => "snapshot resumed after a restart",
    /// A second peer went on with an image that another one had begun to send.
    SnapshotOfTwo => "snapshot of two senders",
    /// The sender had removed the image.
    SnapshotGone => "snapshot gone at its sender",
    /// A state machine was restored from a snapshot at a start.
    SnapshotRestored => "state restored from a snapshot",
    /// What a connected peer lacked was not trimmed.
    TrimHeldBack => "trim held back for a peer",
    /// A membership was chosen that governs from some slot on.
    MembershipGoverns => "membership chosen that governs",
    /// A membership was chosen that changes nothing, as another one of its epoch was before it.
    MembershipVoid => "membership chosen that changes nothing",
    /// An observer that had caught up was made a voter by the leader.
    Promoted => "joiner promoted by the leader",
    /// A leader that is a member no longer stopped.
    LeaderRemoved => "leader removed",
    /// A replica was told that it was removed.
    RemovedTold => "removal told to a former member",
    /// A replica that joins jumped to a snapshot that told it who governs.
    JoinedBySnapshot => "joiner began with a snapshot",
    /// A leader filled slots so that a membership governs soon.
    WindowFilled => "window filled for a change",
    /// As many slots were handed out to be applied as may be.
    ApplyFull => "queue of slots to apply at its bound",
}

impl Mark {
    /// Whether it shows only where the cluster itself asks replicas to propose, and trims their logs:
    /// a host does both by itself, or not at all.
    pub const fn is_of_bare_replicas(self) -> bool {
        matches!(
            self,
            Self::NotLeaderHint
                | Self::NotLeader
                | Self::WindowFull
                | Self::WindowBytesFull
                | Self::Transferring
                | Self::FetchedNothing
                | Self::ReadsShared
                | Self::ReadsLost
                | Self::ReadsWaited
                | Self::LeaderlessRead
                | Self::QuorumReadWaited
                | Self::QuorumReadUnreached
                | Self::QuorumReadUnsettled
                | Self::InstalledByLeader
                | Self::InstallOvertaken
                | Self::SnapshotResumed
                | Self::SnapshotOfTwo
                | Self::SnapshotGone
                | Self::SnapshotRestored
                | Self::TrimHeldBack
                | Self::MembershipGoverns
                | Self::MembershipVoid
                | Self::Promoted
                | Self::LeaderRemoved
                | Self::RemovedTold
                | Self::JoinedBySnapshot
                | Self::WindowFilled
        )
    }
}

/// How often each mark was met.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Meets a mark.
    pub(super) fn meet(&mut self, mark: Mark) {
        self.meet_often(mark, 1);
    }

    /// Meets a mark so many times.
    pub(super) fn meet_often(&mut self, mark: Mark, times: u64) {
        self.0[mark as usize] += times;
    }

    /// How often this one was met.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds the counts of other runs.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Those that were never met.
    pub fn missing(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0)
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Mark::ALL
            .iter()
            .try_for_each(|mark| writeln!(f, "{:>52} {:>12}", mark.words(), self.count(*mark)))
    }
}

#[cfg(test)]
mod tests;
