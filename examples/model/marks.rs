//! What a world has to show at least once: a rule that never came into play was not tested.
//!
//! Owns: [`Mark`], and [`Marks`], a set of them.
//! Invariant: a mark's place in [`Mark::ALL`] is its bit.
//! Source: protocol.md; each mark names its rule.

/// A rule at work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mark {
    PrepareRejected,
    AcceptRejected,
    AcceptRaisedPromise,
    VoteReported,
    ChosenReported,
    PrefixReported,
    ChosenAnswered,
    PromiseWaited,
    AcceptedWaited,
    PrepareWaited,
    OwnVoteWasLast,
    LifeRemembered,
    OldLifeRefused,
    AppliedWhenDurable,
    Adopted,
    HighestOfSeveral,
    HoleFilled,
    PrefixFetched,
    CommandAboveAdopted,
    ReignEndedByPrepare,
    CampaignEndedByPrepare,
    ReignEndedByAccept,
    ReignEndedByReject,
    CampaignEndedByReject,
    ChosenByQuorum,
    ChosenByWatermark,
    WatermarkNotTaken,
    Fetched,
    RepeatedAccepted,
    AcceptedOfOtherBallot,
    ChosenBeyondGap,
    PromiseLost,
    VoteLost,
    VoteRecovered,
    Governs,
    GovernsNothing,
    NewVotersAsked,
    LatePromise,
    LateVoteAdopted,
    LatePrefix,
    NewVotersAwaited,
    VoteOfNoVoter,
    ChangeProposed,
    ChangeRefused,
    WindowFilled,
    GivenUp,
    Removed,
    GovernsRecovered,
    CampaignForbidden,
    LeadsWithoutVote,
}

impl Mark {
    pub(crate) const ALL: [(Self, &'static str); 50] = [
        (Self::PrepareRejected, "A1  a Prepare below the promise is rejected"),
        (Self::AcceptRejected, "A2  an Accept below the promise is rejected"),
        (Self::AcceptRaisedPromise, "A2  an Accept raises the promise"),
        (Self::VoteReported, "A4  a Promise names a vote"),
        (Self::ChosenReported, "A4  a Promise names a chosen value beyond its prefix"),
        (Self::PrefixReported, "A4  a Promise reports a committed prefix"),
        (Self::ChosenAnswered, "A5  an Accept is answered with the chosen value"),
        (Self::PromiseWaited, "D1  a Promise waits for its proof"),
        (Self::AcceptedWaited, "D2  an Accepted waits for its proof"),
        (Self::PrepareWaited, "D3  a Prepare waits for its proof"),
        (Self::OwnVoteWasLast, "D4  the own vote, durable last, makes the quorum"),
        (Self::LifeRemembered, "D5  a new life is remembered, then answered"),
        (Self::OldLifeRefused, "D5  a message of an old life is refused"),
        (Self::AppliedWhenDurable, "D6  a chosen value waits for its proof to be applied"),
        (Self::Adopted, "P2  a value is adopted"),
        (Self::HighestOfSeveral, "P2  of two votes for a slot the higher is adopted"),
        (Self::HoleFilled, "P2  a hole is filled with a no-op"),
        (Self::PrefixFetched, "P3  a new leader is behind a reported prefix"),
        (Self::CommandAboveAdopted, "P4  a command comes above adopted values"),
        (Self::ReignEndedByPrepare, "P7  a Prepare ends a reign"),
        (Self::CampaignEndedByPrepare, "P7  a Prepare ends a campaign"),
        (Self::ReignEndedByAccept, "P7  an Accept ends a reign"),
        (Self::ReignEndedByReject, "A1  a Reject ends a reign"),
        (Self::CampaignEndedByReject, "A1  a Reject ends a campaign"),
        (Self::ChosenByQuorum, "L1  a value is chosen by counting"),
        (Self::ChosenByWatermark, "L3  a watermark settles a slot"),
        (Self::WatermarkNotTaken, "L3  a watermark meets a vote of another ballot"),
        (Self::Fetched, "L4  a chosen value is fetched"),
        (Self::RepeatedAccepted, "Q2  a repeated Accepted is ignored"),
        (Self::AcceptedOfOtherBallot, "L1  an Accepted of another ballot is ignored"),
        (Self::ChosenBeyondGap, "L2  a value is chosen beyond a gap"),
        (Self::PromiseLost, "    a crash loses a promise that was not proved"),
        (Self::VoteLost, "    a crash loses a vote that was not proved"),
        (Self::VoteRecovered, "    a restart finds a vote"),
        (Self::Governs, "M1  a membership is committed that will govern"),
        (Self::GovernsNothing, "M1  a membership that does not follow changes nothing"),
        (Self::NewVotersAsked, "M2  a sitting leader asks the voters of a new membership"),
        (Self::LatePromise, "M2  a sitting leader takes in a promise"),
        (Self::LateVoteAdopted, "M2  a sitting leader adopts what a late promise names"),
        (Self::LatePrefix, "M2  a late promise reports a longer prefix"),
        (Self::NewVotersAwaited, "M2  a command waits for promises of those who govern its slot"),
        (Self::VoteOfNoVoter, "M3  an Accepted of one who does not vote there is not counted"),
        (Self::ChangeProposed, "M4  a change is proposed"),
        (Self::ChangeRefused, "M4  a change is refused while another is under way"),
        (Self::WindowFilled, "M5  a leader fills the window before a new membership"),
        (Self::GivenUp, "M6  a membership is given up"),
        (Self::Removed, "M6  a removed replica stops"),
        (Self::GovernsRecovered, "M7  a restart finds who governs"),
        (Self::CampaignForbidden, "M8  one who does not vote in an open slot does not campaign"),
        (Self::LeadsWithoutVote, "M10 a leader proposes in a slot in which it does not vote"),
    ];

    pub(crate) fn text(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks(pub(crate) u64);

impl Marks {
    pub(crate) fn add(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u64;
    }

    pub(crate) fn add_if(&mut self, mark: Mark, holds: bool) {
        if holds {
            self.add(mark);
        }
    }

    pub(crate) fn contains(self, mark: Mark) -> bool {
        self.0 >> mark as u64 & 1 == 1
    }
}
