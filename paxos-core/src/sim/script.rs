//! Scenarios written by hand: cut this, crash that, expect a leader.
//!
//! Owns: [`Script`], a [`Cluster`] with short words for tests. Replicas are plain numbers from 1.
//! Invariant: a broken invariant ends the test at the next step, with the trace.

use core::time::Duration;

use bytes::Bytes;

use super::cluster::Cluster;
use super::kind::Kind;
use super::network::{Rule, Shape};
use super::options::Options;
use crate::ids::{ClientId, ReplicaId, RequestNumber, Slot};
use crate::message::Connectivity;
use crate::output::{ProposeError, Proposed, Role, Status};
use crate::value::{Command, Value};

/// The client of every scripted command.
const CLIENT: ClientId = ClientId::new(7);

/// A cluster in the hands of a test.
#[derive(Debug)]
pub struct Script {
    cluster: Cluster,
    requests: u64,
}

impl Script {
    /// A calm cluster of so many replicas.
    pub fn new(replicas: u16) -> Self {
        Self::with(Options::new(u64::from(replicas), replicas))
    }

    /// A calm cluster with these options.
    pub fn with(options: Options) -> Self {
        Self {
            cluster: Cluster::new(options),
            requests: 0,
        }
    }

    /// The cluster beneath.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Fails the test if an invariant is broken.
    pub fn assert_safe(&self) {
        if let Some(violation) = self.cluster.violation() {
            panic!("{violation}\n{}", self.cluster.trace());
        }
    }

    /// Fails the test with the trace.
    pub fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.cluster.trace())
    }

    /// The longest time from the loss of a leader to the start of a campaign.
    pub fn election_timeout(&self) -> Duration {
        self.cluster.options().election_timeout()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.cluster.run_for(duration);
        self.assert_safe();
    }

    /// Lets time pass, in election timeouts.
    pub fn run_timeouts(&mut self, timeouts: u32) {
        self.run_for(self.election_timeout() * timeouts);
    }

    /// Runs until this holds; fails the test if it does not within so many election timeouts.
    pub fn expect(&mut self, what: &str, timeouts: u32, done: impl FnMut(&mut Cluster) -> bool) {
        let within = self.election_timeout() * timeouts;
        let held = self.cluster.run_until_done(within, done);
        self.assert_safe();
        if !held {
            self.fail(&format!("not within {timeouts} election timeouts: {what}"));
        }
    }

    /// Who leads: the leader of the highest ballot that reaches a quorum.
    pub fn leader(&self) -> Option<u16> {
        leader_among(&self.cluster, |_| true)
    }

    /// Runs until somebody leads; fails the test after so many election timeouts.
    pub fn expect_leader(&mut self, timeouts: u32) -> u16 {
        self.expect_leader_among(timeouts, |_| true)
    }

    /// Runs until one of these leads.
    pub fn expect_leader_among(&mut self, timeouts: u32, among: impl Fn(u16) -> bool) -> u16 {
        self.expect("a leader", timeouts, |cluster| {
            leader_among(cluster, &among).is_some()
        });
        leader_among(&self.cluster, &among).expect("it was there just before")
    }

    /// Makes `id` the leader: until it is, nobody else's Prepare arrives. Clears all rules.
    pub fn elect(&mut self, id: u16) {
        for other in (1..=self.cluster.options().replicas).filter(|other| *other != id) {
            self.drop_kind(Kind::Prepare, Some(other), None);
        }
        self.expect_leader_among(12, |leader| leader == id);
        self.drop_nothing();
        // The others hear of it before anything else happens.
        self.expect("the others follow", 4, |cluster| {
            let ids = cluster.ids();
            let leads = |status: Status| {
                status
                    .leader
                    .is_some_and(|ballot| ballot.leader() == ReplicaId::new(id))
                    && status.connected_peers.len() + 1 == usize::from(cluster.options().replicas)
            };
            ids.filter_map(|id| cluster.status(id)).all(leads)
        });
    }

    /// A replica's own account; fails the test if it is down.
    pub fn status(&self, id: u16) -> Status {
        self.cluster
            .status(ReplicaId::new(id))
            .unwrap_or_else(|| self.fail(&format!("replica {id} is down")))
    }

    /// Asks a replica to propose one command with this payload.
    pub fn propose(&mut self, at: u16, payload: &[u8]) -> Result<Proposed, ProposeError> {
        self.requests += 1;
        let request = RequestNumber::new(self.requests);
        let command = Command::apply(CLIENT, request, Bytes::copy_from_slice(payload));
        let result = self.cluster.propose(ReplicaId::new(at), &[command]);
        self.assert_safe();
        result.unwrap_or_else(|| self.fail(&format!("replica {at} does not answer")))
    }

    /// Proposes and runs until the proposer knows that it is chosen.
    pub fn commit(&mut self, at: u16, payload: &[u8], timeouts: u32) -> Slot {
        let proposed = self.propose(at, payload);
        let Ok(Proposed { slot, .. }) = proposed else {
            self.fail(&format!("refused by replica {at}: {proposed:?}"));
        };
        self.expect("the command is committed", timeouts, |cluster| {
            let status = cluster.status(ReplicaId::new(at));
            status.is_some_and(|status| status.committed >= slot)
        });
        if self.payloads(slot) != [payload] {
            self.fail(&format!("another value is in {slot}"));
        }
        slot
    }

    /// The payloads of the commands that are chosen in a slot.
    pub fn payloads(&mut self, slot: Slot) -> Vec<Vec<u8>> {
        match self.cluster.check().chosen(slot) {
            Some(Value::Batch(batch)) => {
                let payload = |command: &Command| command.payload.to_vec();
                batch.commands().iter().map(payload).collect()
            }
            Some(Value::Noop | Value::Membership(_)) | None => Vec::new(),
        }
    }

    /// Runs until these have applied everything that is chosen.
    pub fn expect_applied(&mut self, ids: &[u16], timeouts: u32) {
        self.expect("everything chosen is applied", timeouts, |cluster| {
            let prefix = cluster.check().chosen_prefix();
            ids.iter().all(|id| {
                let status = cluster.status(ReplicaId::new(*id));
                status.is_some_and(|status| status.applied == prefix)
            })
        });
    }

    /// Cuts both ways between two replicas.
    pub fn cut(&mut self, a: u16, b: u16) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts the way from one replica to another.
    pub fn cut_one_way(&mut self, from: u16, to: u16) {
        let network = self.cluster.network();
        network.cut(ReplicaId::new(from), ReplicaId::new(to));
    }

    /// Cuts a replica from everybody.
    pub fn isolate(&mut self, id: u16) {
        self.shape(&Shape::Isolate(ReplicaId::new(id)));
    }

    /// Cuts the network into a shape.
    pub fn shape(&mut self, shape: &Shape) {
        self.cluster.remark(format!("{shape:?}"));
        self.cluster.network().shape(shape);
    }

    /// Opens every way.
    pub fn heal(&mut self) {
        self.cluster.remark("healed".to_owned());
        self.cluster.network().heal();
    }

    /// Drops every message of a kind, from and to these or anybody, until [`Script::drop_nothing`].
    pub fn drop_kind(&mut self, kind: Kind, from: Option<u16>, to: Option<u16>) {
        self.cluster.network().add_rule(Rule {
            kind,
            from: from.map(ReplicaId::new),
            to: to.map(ReplicaId::new),
        });
    }

    /// Lets every kind through again.
    pub fn drop_nothing(&mut self) {
        self.cluster.network().clear_rules();
    }

    /// Takes a replica's power away.
    pub fn crash(&mut self, id: u16) {
        self.cluster.crash(ReplicaId::new(id));
    }

    /// Starts a replica that is down.
    pub fn restart(&mut self, id: u16) {
        self.cluster.restart(ReplicaId::new(id));
        self.assert_safe();
    }
}

fn leader_among(cluster: &Cluster, among: impl Fn(u16) -> bool) -> Option<u16> {
    let leads = |id: ReplicaId| {
        let status = cluster.status(id)?;
        let leads = status.role == Role::Leader && status.connectivity == Connectivity::Quorum;
        leads.then_some((status.leader, id.number()))
    };
    let leaders = cluster
        .ids()
        .filter(|id| among(id.number()))
        .filter_map(leads);
    leaders.max().map(|(_, id)| id)
}
