//! The small worlds: how large each part is, what it has to show, and how many states it has.
//!
//! Owns: [`Scope`], [`Part`], [`WORLDS`].
//! Invariant: a part with a pinned count is exhausted in every run; the others are cut short.
//! Source: the sizes come from experiments; most bugs of consensus need no more than three
//! replicas, two candidates and one crash.

use paxos_core::ids::Slot;

use crate::marks::Mark;
use crate::members::{Votes, Wish};

pub(crate) const REPLICAS: usize = 3;

/// The bounds of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// How often each replica may campaign, and all of them together.
    pub(crate) campaigns: [u8; REPLICAS],
    pub(crate) campaigns_all: u8,
    /// The places of those who campaign, in this order; in any, if nobody is named.
    pub(crate) turns: &'static [u8],
    /// Whether one replica may crash, any of them, and start again.
    pub(crate) crash: bool,
    /// Whether every write is durable at once. Otherwise its proof comes at any time.
    pub(crate) prompt: bool,
    /// The slots that clients fill, and how many requests each replica is given at most.
    pub(crate) first_slot: u8,
    pub(crate) slots: u8,
    pub(crate) requests: u8,
    /// The first membership, and α.
    pub(crate) first: Votes,
    pub(crate) window: u32,
    /// The changes that operators ask for, each once, of whoever leads, and the last slot for one.
    pub(crate) wishes: &'static [Wish],
    pub(crate) change_slots: u8,
    /// Which replicas see their short timers fire, and so fetch and record what is committed.
    pub(crate) moments: [bool; REPLICAS],
    /// Messages that the network always loses, by name. It may lose any, so this leaves out worlds
    /// and adds none.
    pub(crate) lost: &'static [&'static str],
    /// What is not lost on a link, where that is little.
    pub(crate) links: &'static [Link],
}

impl Scope {
    /// Of those who are to get a message, as bits, the ones that may.
    pub(crate) fn reached(&self, from: usize, to: u8, name: &str) -> u8 {
        if self.lost.contains(&name) {
            return 0;
        }
        let links = self.links.iter().filter(|link| link.from == from);
        let cut = links.filter(|link| !link.passes.contains(&name));
        cut.fold(to, |to, link| to & !(1 << link.to))
    }

    /// Whether a client may fill this slot.
    pub(crate) fn fills(&self, slot: Slot) -> bool {
        (u64::from(self.first_slot)..=u64::from(self.slots)).contains(&slot.number())
    }

    /// Whether this replica may campaign after so many campaigns.
    pub(crate) fn is_turn_of(&self, place: usize, campaigns: u8) -> bool {
        let turn = self.turns.get(usize::from(campaigns));
        self.turns.is_empty() || turn.is_some_and(|turn| usize::from(*turn) == place)
    }
}

/// Between these places the network loses all but these messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) passes: &'static [&'static str],
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
const HINTS: &[&str] = &["Reject", "Commit", "Fetch", "Fetched", "Heartbeat"];

/// All three vote, and two are a quorum.
const MAJORITY: Votes = Votes { voters: &[1, 2, 3], observers: &[], prepare: 2, accept: 2 };

const ONE_SLOT: Scope = Scope {
    campaigns: [1, 1, 0],
    campaigns_all: 2,
    turns: &[],
    crash: false,
    prompt: false,
    first_slot: 1,
    slots: 1,
    requests: 1,
    first: MAJORITY,
    window: 4,
    wishes: &[],
    change_slots: 0,
    moments: [false; REPLICAS],
    lost: HINTS,
    links: &[],
};

/// Two of the three vote on, of which both promise and one accepts.
const TWO: Votes = Votes { voters: &[2, 3], observers: &[], prepare: 2, accept: 1 };
/// One alone.
const ONE: Votes = Votes { voters: &[3], observers: &[], prepare: 1, accept: 1 };
/// The same three, of which all promise and one accepts.
const QUICK: Votes = Votes { voters: &[1, 2, 3], observers: &[], prepare: 3, accept: 1 };

/// The first and the third replica meet where they have to, and learn of each other from the second.
const APART: &[Link] = &[
    Link { from: 0, to: 2, passes: &["Prepare"] },
    Link { from: 2, to: 0, passes: &["Prepare", "Promise"] },
];
/// They say only what tells the first that it is removed.
const LEFT: &[Link] = &[
    Link { from: 0, to: 1, passes: &[] },
    Link { from: 0, to: 2, passes: &["Heartbeat"] },
    Link { from: 1, to: 0, passes: &[] },
    Link { from: 2, to: 0, passes: &["Removed"] },
];

/// A change in the first slot, which governs from the third on.
const ONE_CHANGE: Scope = Scope {
    campaigns: [1, 0, 1],
    prompt: true,
    first_slot: 3,
    slots: 3,
    window: 2,
    wishes: &[Wish { epoch: 1, into: TWO }],
    change_slots: 1,
    moments: [true, false, false],
    lost: &["Reject", "Commit", "Heartbeat"],
    links: APART,
    ..ONE_SLOT
};

const ALL_STATES: usize = 100_000_000;

pub(crate) const WORLDS: &[World] = &[
    World {
        name: "s",
        parts: &[
            Part {
                name: "two candidates, a crash",
                scope: Scope { crash: true, ..ONE_SLOT },
                states: Some(6_651_234),
                states_max: ALL_STATES,
            },
            Part {
                name: "one candidate twice, a crash",
                scope: Scope { crash: true, campaigns: [2, 0, 0], ..ONE_SLOT },
                states: Some(320_440),
                states_max: ALL_STATES,
            },
            Part {
                name: "two candidates, every message",
                scope: Scope { lost: &["Heartbeat"], ..ONE_SLOT },
                states: Some(17_201_345),
                states_max: ALL_STATES,
            },
            Part {
                name: "two candidates, one fetches",
                scope: Scope {
                    lost: &["Reject", "Heartbeat"],
                    moments: [false, false, true],
                    ..ONE_SLOT
                },
                states: Some(20_689_427),
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
                states: None,
                states_max: 20_000_000,
            },
            Part {
                name: "three campaigns of two candidates",
                scope: Scope { campaigns: [2, 2, 0], campaigns_all: 3, ..ONE_SLOT },
                states: Some(12_555_563),
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
                states: None,
                states_max: 20_000_000,
            },
            Part {
                name: "two slots, two candidates, one fetches",
                scope: Scope {
                    slots: 2,
                    requests: 2,
                    lost: &["Reject", "Heartbeat"],
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
    World {
        name: "s3",
        parts: &[
            Part {
                name: "other voters, then a candidate of the old ones",
                scope: Scope { turns: &[2, 0], ..ONE_CHANGE },
                states: Some(1_153_545),
                states_max: ALL_STATES,
            },
            Part {
                name: "other quorums, then a candidate that does not know",
                scope: Scope {
                    turns: &[2, 0],
                    wishes: &[Wish { epoch: 1, into: QUICK }],
                    ..ONE_CHANGE
                },
                states: Some(576_261),
                states_max: ALL_STATES,
            },
            Part {
                name: "other voters, a command in a slot below them",
                scope: Scope { turns: &[2, 0], first_slot: 2, slots: 2, ..ONE_CHANGE },
                states: Some(43_618),
                states_max: ALL_STATES,
            },
            Part {
                name: "two changes in one window",
                scope: Scope {
                    campaigns: [1, 0, 2],
                    campaigns_all: 3,
                    turns: &[2, 0, 2],
                    first_slot: 1,
                    slots: 1,
                    wishes: &[Wish { epoch: 1, into: TWO }, Wish { epoch: 1, into: QUICK }],
                    change_slots: 2,
                    moments: [false; REPLICAS],
                    lost: HINTS,
                    ..ONE_CHANGE
                },
                states: Some(1_466_360),
                states_max: ALL_STATES,
            },
            Part {
                name: "two changes, one after the other",
                scope: Scope {
                    campaigns: [0, 0, 1],
                    slots: 5,
                    requests: 0,
                    wishes: &[Wish { epoch: 1, into: TWO }, Wish { epoch: 2, into: ONE }],
                    change_slots: 3,
                    moments: [true; REPLICAS],
                    lost: &["Reject", "Fetch", "Fetched"],
                    links: LEFT,
                    ..ONE_CHANGE
                },
                states: None,
                states_max: 10_000_000,
            },
            Part {
                name: "other voters, a crash",
                scope: Scope {
                    campaigns: [1, 0, 2],
                    campaigns_all: 2,
                    turns: &[2, 2],
                    crash: true,
                    moments: [false; REPLICAS],
                    lost: HINTS,
                    links: LEFT,
                    ..ONE_CHANGE
                },
                states: Some(17_496),
                states_max: ALL_STATES,
            },
            Part {
                name: "other voters, candidates in any order",
                scope: Scope { first_slot: 1, links: &[], ..ONE_CHANGE },
                states: None,
                states_max: 10_000_000,
            },
        ],
        shows: &[
            Mark::Governs,
            Mark::GovernsNothing,
            Mark::NewVotersAsked,
            Mark::LatePromise,
            Mark::LatePrefix,
            Mark::NewVotersAwaited,
            Mark::ChangeProposed,
            Mark::ChangeRefused,
            Mark::WindowFilled,
            Mark::GivenUp,
            Mark::Removed,
            Mark::GovernsRecovered,
            Mark::LeadsWithoutVote,
        ],
    },
];
