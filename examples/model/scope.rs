//! The small worlds: how large each part is, what it has to show, and how many states it has.
//!
//! Owns: [`Scope`], [`Part`], [`WORLDS`].
//! Invariant: a part with a pinned count is exhausted in every run; the others are cut short.
//! Source: the sizes come from experiments; most bugs of consensus need no more than three
//! replicas, two candidates and one crash.

use crate::marks::Mark;

pub(crate) const REPLICAS: usize = 3;

/// The bounds of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// How often each replica may campaign, and all of them together.
    pub(crate) campaigns: [u8; REPLICAS],
    pub(crate) campaigns_all: u8,
    /// Whether one replica may crash, any of them, and start again.
    pub(crate) crash: bool,
    /// How many slots clients fill, and how many requests each replica is given at most.
    pub(crate) slots: u8,
    pub(crate) requests: u8,
    /// Which replicas see their short timers fire, and so fetch and record what is committed.
    pub(crate) moments: [bool; REPLICAS],
    /// Messages that the network always loses, by name. It may lose any, so this leaves out worlds
    /// and adds none.
    pub(crate) lost: &'static [&'static str],
}

/// One exhaustive walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    /// How many states there are, where the walk ends by itself.
    pub(crate) states: Option<usize>,
    /// The walk is cut short after so many states.
    pub(crate) states_max: usize,
}

/// A world of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [Part],
    /// What its parts show together.
    pub(crate) shows: &'static [Mark],
}

/// What only tells how far others are. Safety needs none of it, and each doubles the worlds.
const HINTS: &[&str] = &["Reject", "Commit", "Fetch", "Fetched"];

const ONE_SLOT: Scope = Scope {
    campaigns: [1, 1, 0],
    campaigns_all: 2,
    crash: false,
    slots: 1,
    requests: 1,
    moments: [false; REPLICAS],
    lost: HINTS,
};

const ALL_STATES: usize = 100_000_000;

pub(crate) const WORLDS: &[World] = &[
    World {
        name: "s",
        parts: &[
            Part {
                name: "two candidates, a crash",
                scope: Scope { crash: true, ..ONE_SLOT },
                states: Some(4_394_199),
                states_max: ALL_STATES,
            },
            Part {
                name: "one candidate twice, a crash",
                scope: Scope { crash: true, campaigns: [2, 0, 0], ..ONE_SLOT },
                states: Some(130_333),
                states_max: ALL_STATES,
            },
            Part {
                name: "two candidates, every message",
                scope: Scope { lost: &[], ..ONE_SLOT },
                states: Some(2_653_593),
                states_max: ALL_STATES,
            },
            Part {
                name: "two candidates, one fetches",
                scope: Scope { lost: &["Reject"], moments: [false, false, true], ..ONE_SLOT },
                states: Some(3_362_027),
                states_max: ALL_STATES,
            },
        ],
        shows: &[
            Mark::PrepareRejected,
            Mark::AcceptRejected,
            Mark::AcceptRaisedPromise,
            Mark::VoteReported,
            Mark::PrefixReported,
            Mark::ChosenAnswered,
            Mark::PromiseWaited,
            Mark::AcceptedWaited,
            Mark::PrepareWaited,
            Mark::OwnVoteWasLast,
            Mark::AppliedWhenDurable,
            Mark::Adopted,
            Mark::PrefixFetched,
            Mark::ReignEndedByPrepare,
            Mark::CampaignEndedByPrepare,
            Mark::ReignEndedByAccept,
            Mark::ChosenByQuorum,
            Mark::RepeatedAccepted,
            Mark::LifeRemembered,
            Mark::OldLifeRefused,
            Mark::ReignEndedByReject,
            Mark::CampaignEndedByReject,
            Mark::ChosenByWatermark,
            Mark::WatermarkNotTaken,
            Mark::Fetched,
            Mark::AcceptedOfOtherBallot,
            Mark::PromiseLost,
            Mark::VoteLost,
            Mark::VoteRecovered,
        ],
    },
    World {
        name: "s1",
        parts: &[
            Part {
                name: "three candidates",
                scope: Scope { campaigns: [1, 1, 1], campaigns_all: 3, ..ONE_SLOT },
                states: Some(3_303_412),
                states_max: ALL_STATES,
            },
            Part {
                name: "three campaigns of two candidates",
                scope: Scope { campaigns: [2, 2, 0], campaigns_all: 3, ..ONE_SLOT },
                states: Some(1_027_185),
                states_max: ALL_STATES,
            },
            Part {
                name: "three candidates, a crash",
                scope: Scope { crash: true, campaigns: [1, 1, 1], campaigns_all: 3, ..ONE_SLOT },
                states: None,
                states_max: 20_000_000,
            },
        ],
        shows: &[
            Mark::PrepareRejected,
            Mark::AcceptRejected,
            Mark::AcceptRaisedPromise,
            Mark::VoteReported,
            Mark::PrefixReported,
            Mark::ChosenAnswered,
            Mark::PromiseWaited,
            Mark::AcceptedWaited,
            Mark::PrepareWaited,
            Mark::OwnVoteWasLast,
            Mark::AppliedWhenDurable,
            Mark::Adopted,
            Mark::PrefixFetched,
            Mark::ReignEndedByPrepare,
            Mark::CampaignEndedByPrepare,
            Mark::ReignEndedByAccept,
            Mark::ChosenByQuorum,
            Mark::RepeatedAccepted,
            Mark::HighestOfSeveral,
        ],
    },
    World {
        name: "s2",
        parts: &[
            Part {
                name: "two slots, two candidates",
                scope: Scope { slots: 2, requests: 2, ..ONE_SLOT },
                states: Some(6_063_373),
                states_max: ALL_STATES,
            },
            Part {
                name: "two slots, two candidates, one fetches",
                scope: Scope {
                    slots: 2,
                    requests: 2,
                    lost: &["Reject"],
                    moments: [false, false, true],
                    ..ONE_SLOT
                },
                states: None,
                states_max: 20_000_000,
            },
        ],
        shows: &[
            Mark::PrepareRejected,
            Mark::AcceptRejected,
            Mark::AcceptRaisedPromise,
            Mark::VoteReported,
            Mark::PrefixReported,
            Mark::ChosenAnswered,
            Mark::PromiseWaited,
            Mark::AcceptedWaited,
            Mark::PrepareWaited,
            Mark::OwnVoteWasLast,
            Mark::AppliedWhenDurable,
            Mark::Adopted,
            Mark::PrefixFetched,
            Mark::ReignEndedByPrepare,
            Mark::CampaignEndedByPrepare,
            Mark::ReignEndedByAccept,
            Mark::ChosenByQuorum,
            Mark::RepeatedAccepted,
            Mark::ChosenReported,
            Mark::HoleFilled,
            Mark::CommandAboveAdopted,
            Mark::ChosenBeyondGap,
            Mark::ChosenByWatermark,
        ],
    },
];
