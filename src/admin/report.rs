//! What answers hold.
//!
//! Owns: the reports, their fields' names in JSON, and how they are taken from what a node shows.
//! Invariant: a field keeps its name and meaning within one version; others may be added.

use core::time::Duration;
use std::sync::Arc;

use paxos_core::ballot::Ballot;
use paxos_core::codec::encode_membership;
use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, ReplicaId, Slot, Time};
use paxos_core::membership::{Member, Membership};
use paxos_core::message::Connectivity;
use paxos_core::output::{PeerFlow, Role};
use paxos_core::port::Room;
use paxos_core::quorum::{QuorumRule, QuorumSystem, VoterSet};
use serde::{Deserialize, Serialize};

use crate::admin::plain;
use crate::backup::BackupInfo;
use crate::node::Place;
use crate::shared::{Leadership, NodeStatus};
use crate::snapshot::SnapshotInfo;

/// What one node says of itself. Counters of slots and bytes are those of the last heartbeat; `applied` is
/// that of the moment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StatusReport {
    /// Its cluster.
    #[serde(with = "plain")]
    pub cluster: ClusterId,
    /// Its group.
    #[serde(with = "plain")]
    pub group: GroupId,
    /// Which member it is.
    #[serde(with = "plain")]
    pub replica: ReplicaId,
    /// Its life.
    #[serde(with = "plain")]
    pub life: Incarnation,
    /// The version of the library that it runs.
    pub release: String,
    /// Since when it runs.
    #[serde(rename = "uptime_ms", with = "plain")]
    pub uptime: Duration,
    /// How old what follows is: the node's task writes it down with each heartbeat. Much more means that
    /// the task does not run.
    #[serde(rename = "age_ms", with = "plain")]
    pub age: Duration,
    /// What it does.
    #[serde(with = "plain")]
    pub role: Role,
    /// Who leads, as far as it knows.
    #[serde(with = "plain")]
    pub leader: Option<ReplicaId>,
    /// The ballot of that leader.
    #[serde(with = "plain")]
    pub ballot: Option<Ballot>,
    /// The highest ballot that it has promised.
    #[serde(with = "plain")]
    pub promised: Option<Ballot>,
    /// The number of the membership in force.
    #[serde(with = "plain")]
    pub epoch: Epoch,
    /// Who votes in it.
    #[serde(with = "plain")]
    pub voters: Vec<ReplicaId>,
    /// Who follows without a vote.
    #[serde(with = "plain")]
    pub observers: Vec<ReplicaId>,
    /// The last slot up to which all are chosen, as far as it knows.
    #[serde(with = "plain")]
    pub committed: Slot,
    /// The last slot that its state machine holds.
    #[serde(with = "plain")]
    pub applied: Slot,
    /// The last slot that its log no longer has.
    #[serde(with = "plain")]
    pub trimmed: Slot,
    /// Whether it could lead.
    #[serde(with = "plain")]
    pub connectivity: Connectivity,
    /// Whom it exchanges heartbeats with, both ways.
    #[serde(with = "plain")]
    pub connected: Vec<ReplicaId>,
    /// Whether its storage takes new commands.
    #[serde(with = "plain")]
    pub room: Room,
    /// Slots proposed and not chosen, as leader.
    pub slots_in_flight: u64,
    /// Bytes of their values.
    pub bytes_in_flight: u64,
    /// Writes to the log that have not returned.
    pub writes_pending: u64,
    /// For how long it gives read points without asking, as leader.
    #[serde(rename = "lease_left_ms", with = "plain")]
    pub lease_left: Option<Duration>,
    /// For whom it makes way, as leader.
    #[serde(with = "plain")]
    pub transferring: Option<ReplicaId>,
    /// Replicas that it does not heed.
    pub disagreeing: Vec<DisagreementReport>,
    /// What is on its way to each peer, as leader.
    pub flows: Vec<FlowReport>,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
}

/// A replica that was formatted with something else, and is not heeded.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DisagreementReport {
    /// The replica.
    #[serde(with = "plain")]
    pub peer: ReplicaId,
    /// With what.
    pub what: String,
}

/// What a leader sent a peer and has no answer to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FlowReport {
    /// The peer.
    #[serde(with = "plain")]
    pub peer: ReplicaId,
    /// How many slots.
    pub slots: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Whether it is sent one message at a time, as it does not keep up or is not heard.
    pub probed: bool,
}

/// The membership in force, as one node knows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MembersReport {
    /// Its cluster.
    #[serde(with = "plain")]
    pub cluster: ClusterId,
    /// Its group.
    #[serde(with = "plain")]
    pub group: GroupId,
    /// Who says so.
    #[serde(with = "plain")]
    pub replica: ReplicaId,
    /// The membership's number.
    #[serde(with = "plain")]
    pub epoch: Epoch,
    /// Who votes, in the order of their ids.
    pub voters: Vec<MemberReport>,
    /// Who follows without a vote.
    pub observers: Vec<MemberReport>,
    /// Who of the observers is to vote.
    pub joining: Vec<JoiningReport>,
    /// The memberships that are needed, oldest first: more than one while a change is under way.
    pub governs: Vec<GovernsReport>,
    /// The membership whole, as directories of new members are formatted with it: its bytes, in
    /// hexadecimal digits.
    pub format: String,
    /// How many of the voters are enough.
    pub quorums: QuorumReport,
    /// How many slots may be in flight.
    pub window: u32,
    /// How long leases last, where there are any.
    #[serde(rename = "lease_ms", with = "plain")]
    pub lease: Option<Duration>,
    /// Whom the node that says so exchanges heartbeats with, both ways.
    #[serde(with = "plain")]
    pub connected: Vec<ReplicaId>,
    /// Who leads, as far as it knows.
    #[serde(with = "plain")]
    pub leader: Option<ReplicaId>,
}

/// One member.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemberReport {
    /// Its id.
    #[serde(with = "plain")]
    pub id: ReplicaId,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// The SHA-256 of its public keys, in hexadecimal digits.
    pub keys: Vec<String>,
}

/// A membership that is needed, and from where on it governs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GovernsReport {
    /// Its number.
    #[serde(with = "plain")]
    pub epoch: Epoch,
    /// The first slot that it governs; a node that joins does not know it yet.
    #[serde(with = "plain")]
    pub from: Option<Slot>,
    /// Who votes in it.
    #[serde(with = "plain")]
    pub voters: Vec<ReplicaId>,
}

/// An observer that is to vote once it has caught up.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JoiningReport {
    /// Which one.
    #[serde(with = "plain")]
    pub id: ReplicaId,
    /// The voter that leaves then, if one does.
    #[serde(with = "plain")]
    pub replaces: Option<ReplicaId>,
    /// How many slots its disk lacks of what the node that says so has committed, as far as was heard.
    pub behind: u64,
}

/// What came of a change of the membership: it governs, and no earlier one is needed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChangeReport {
    /// The new membership's number.
    #[serde(with = "plain")]
    pub epoch: Epoch,
    /// The first slot that it governs.
    #[serde(with = "plain")]
    pub from: Slot,
    /// From the order to then.
    #[serde(rename = "took_ms", with = "plain")]
    pub took: Duration,
}

/// How many voters are enough.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct QuorumReport {
    /// `majority`, `counts`, `weights` or `sets`.
    pub rule: String,
    /// The rule in words.
    pub text: String,
    /// Any so many voters may fail, and a leader can still be elected.
    pub elections_survive: u64,
    /// Any so many voters may fail, and a leader can still have commands chosen.
    pub writes_survive: u64,
}

/// What came of an order to make way.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TransferReport {
    /// Who leads.
    #[serde(with = "plain")]
    pub leader: ReplicaId,
    /// Under which ballot.
    #[serde(with = "plain")]
    pub ballot: Ballot,
    /// From the order to the news that the other one leads.
    #[serde(rename = "took_ms", with = "plain")]
    pub took: Duration,
}

/// Who leads, as far as one node knows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeadershipReport {
    /// Who says so.
    #[serde(with = "plain")]
    pub replica: ReplicaId,
    /// Who leads, if it knows.
    #[serde(with = "plain")]
    pub leader: Option<ReplicaId>,
    /// Under which ballot.
    #[serde(with = "plain")]
    pub ballot: Option<Ballot>,
}

/// A snapshot that a node made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// Which member made it.
    #[serde(with = "plain")]
    pub replica: ReplicaId,
    /// The last slot that it includes.
    #[serde(with = "plain")]
    pub slot: Slot,
    /// The bytes of its image.
    pub bytes: u64,
    /// The digest of its image, 32 hexadecimal digits: the same on all replicas at one slot.
    pub digest: String,
    /// How long that took.
    #[serde(rename = "took_ms", with = "plain")]
    pub took: Duration,
}

impl SnapshotReport {
    pub(crate) fn of(replica: ReplicaId, info: &SnapshotInfo, took: Duration) -> Self {
        let SnapshotInfo { slot, bytes, digest } = *info;
        Self { replica, slot, bytes, digest: digest.to_string(), took }
    }
}

/// A log that was trimmed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TrimReport {
    /// Whose log it is.
    #[serde(with = "plain")]
    pub replica: ReplicaId,
    /// The last slot that it no longer has.
    #[serde(with = "plain")]
    pub trimmed: Slot,
}

/// A backup that a node wrote.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// Where it is.
    pub file: String,
    /// The length of the file.
    pub file_bytes: u64,
    /// The cluster that it was made in.
    #[serde(with = "plain")]
    pub cluster: ClusterId,
    /// The snapshot in it.
    pub snapshot: Option<SnapshotReport>,
    /// How many slots after the snapshot are in it.
    pub values: u64,
    /// The last slot in it.
    #[serde(with = "plain")]
    pub last: Slot,
}

impl ExportReport {
    /// Of this file.
    pub fn of(file: &str, info: &BackupInfo, took: Duration) -> Self {
        let replica = info.origin.replica;
        Self {
            file: file.to_owned(),
            file_bytes: info.file_bytes,
            cluster: info.origin.cluster,
            snapshot: info.snapshot.map(|made| SnapshotReport::of(replica, &made, took)),
            values: info.values,
            last: info.last,
        }
    }
}

impl StatusReport {
    pub(crate) fn of(
        place: Place,
        node: &NodeStatus,
        membership: &Membership,
        at: Time,
        uptime: Time,
    ) -> Self {
        let status = &node.replica;
        let ids = |members: &[Member]| members.iter().map(|member| member.id).collect();
        let left = |until: Time| (until > uptime).then(|| until.since(uptime));
        let disagreeing = status.disagreeing.iter();
        Self {
            cluster: place.cluster,
            group: place.group,
            replica: place.replica,
            life: status.incarnation,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: uptime.since(Time::ZERO),
            age: uptime.since(at),
            role: status.role,
            leader: status.leader.map(Ballot::leader),
            ballot: status.leader,
            promised: status.promised,
            epoch: status.epoch,
            voters: ids(membership.voters()),
            observers: ids(membership.observers()),
            committed: status.committed,
            applied: status.applied,
            trimmed: status.trimmed,
            connectivity: status.connectivity,
            connected: status.connected_peers.clone(),
            room: node.room,
            slots_in_flight: status.slots_in_flight as u64,
            bytes_in_flight: status.bytes_in_flight as u64,
            writes_pending: status.writes_pending,
            lease_left: status.lease_until.and_then(left),
            transferring: status.transferring,
            disagreeing: disagreeing
                .map(|(peer, what)| DisagreementReport { peer: *peer, what: what.to_string() })
                .collect(),
            flows: status.flows.iter().map(FlowReport::of).collect(),
            stopped: node.stopped.as_ref().map(ToString::to_string),
        }
    }
}

impl FlowReport {
    fn of(flow: &PeerFlow) -> Self {
        let PeerFlow { peer, slots, bytes, probed } = *flow;
        Self { peer, slots: slots as u64, bytes: bytes as u64, probed }
    }
}

impl MembersReport {
    pub(crate) fn of(
        place: Place,
        node: &NodeStatus,
        membership: &Membership,
        memberships: &[(Option<Slot>, Arc<Membership>)],
    ) -> Self {
        let committed = node.replica.committed;
        let joining = node.replica.joining.iter().map(|joining| JoiningReport {
            id: joining.id,
            replaces: joining.replaces,
            behind: committed.distance_from(joining.held),
        });
        let governs = memberships.iter().map(|(from, membership)| GovernsReport {
            epoch: membership.epoch(),
            from: *from,
            voters: membership.voters().iter().map(|member| member.id).collect(),
        });
        let reports = |members: &[Member]| members.iter().map(MemberReport::of).collect();
        Self {
            cluster: place.cluster,
            group: place.group,
            replica: place.replica,
            epoch: membership.epoch(),
            voters: reports(membership.voters()),
            observers: reports(membership.observers()),
            joining: joining.collect(),
            governs: governs.collect(),
            format: digits(&encode_membership(membership)),
            quorums: QuorumReport::of(membership.quorums(), membership.voters()),
            window: membership.window(),
            lease: membership.lease().map(paxos_core::membership::LeaseTerms::duration),
            connected: node.replica.connected_peers.clone(),
            leader: node.replica.leader.map(Ballot::leader),
        }
    }
}

impl MemberReport {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id,
            addresses: member.addresses.clone(),
            keys: member.keys.iter().map(|pin| digits(pin)).collect(),
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

impl QuorumReport {
    fn of(system: &QuorumSystem, voters: &[Member]) -> Self {
        let count = voters.len();
        let (rule, text) = match system.rule() {
            QuorumRule::Majority => {
                ("majority", format!("{} of {count} voters elect, and store", count / 2 + 1))
            }
            QuorumRule::Counts { prepare, accept } => {
                ("counts", format!("of {count} voters {prepare} elect, and {accept} store"))
            }
            QuorumRule::Weights { weights, prepare, accept } => {
                let weigh = |(member, weight): (&Member, &u16)| format!("{}: {weight}", member.id);
                let all: Vec<_> = voters.iter().zip(weights).map(weigh).collect();
                let all = all.join(", ");
                ("weights", format!("weight {prepare} elects, and {accept} stores ({all})"))
            }
            QuorumRule::Sets { prepare, accept } => {
                let (prepare, accept) = (sets(prepare, voters), sets(accept, voters));
                ("sets", format!("elect: {prepare}; store: {accept}"))
            }
        };
        let survives = system.tolerates();
        Self {
            rule: rule.to_owned(),
            text,
            elections_survive: survives.prepare as u64,
            writes_survive: survives.accept as u64,
        }
    }
}

/// Sets of voters, each as the ids of its members.
fn sets(sets: &[VoterSet], voters: &[Member]) -> String {
    let ids = |set: &VoterSet| {
        let ids = set.iter().filter_map(|place| voters.get(place));
        let ids: Vec<_> = ids.map(|member| member.id.number().to_string()).collect();
        format!("{{{}}}", ids.join(" "))
    };
    let all: Vec<_> = sets.iter().map(ids).collect();
    all.join(" or ")
}

impl LeadershipReport {
    pub(crate) fn of(replica: ReplicaId, leadership: Leadership) -> Self {
        let ballot = match leadership {
            Leadership::Unknown => None,
            Leadership::Leads(ballot) | Leadership::Follows(ballot) => Some(ballot),
        };
        Self { replica, leader: ballot.map(Ballot::leader), ballot }
    }
}
