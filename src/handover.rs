//! Making way for another node: because somebody asks, because this one is to stop, or because its
//! disk is full.
//!
//! Owns: [`Handover`], what is under way and when the next attempt may be; the rules by which
//! [`Driver`] asks its replica to make way. Whether that is possible, and when it has failed, the replica
//! says.
//! Invariants: (1) whoever asked is answered, once; (2) commands wait while the replica makes way, and are
//! refused for no reason that has to do with it.

use core::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{ReplicaId, Time};
use paxos_core::port::Room;
use tokio::sync::oneshot;

use crate::driver::Driver;
use crate::error::TransferError;
use crate::shared::{Closing, Order, Shared};
use crate::waiters::Waiter;

/// A leader with a full disk tries again after so many election timeouts, and each time after twice as
/// many, up to 64 times.
const FULL_WAIT: u32 = 4;
const DOUBLINGS_MAX: u32 = 6;

type Answer = oneshot::Sender<Result<Ballot, TransferError>>;

/// What this node's reign does about its end.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    asked: Option<Asked>,
    /// Until when a node that closes waits for the next leader; `None` if it has not begun to.
    close_by: Option<Time>,
    /// It heard of that leader.
    succeeded: bool,
    /// How often a reign with a full disk made way, and when it may again.
    full: u32,
    full_at: Time,
}

/// A transfer that somebody waits for.
#[derive(Debug)]
struct Asked {
    to: ReplicaId,
    /// The reign that makes way.
    ballot: Ballot,
    /// When whoever waits is told that nothing was heard.
    deadline: Time,
    answer: Answer,
}

impl Handover {
    pub(crate) fn due(&self) -> Option<Time> {
        let asked = self.asked.as_ref().map(|asked| asked.deadline);
        asked.into_iter().chain(self.close_by).min()
    }
}

/// Asks a node to make way for this replica, or for one that it chooses, and waits for what comes of it.
pub(crate) async fn transfer(
    shared: &Shared,
    to: Option<ReplicaId>,
) -> Result<Ballot, TransferError> {
    if shared.closing() != Closing::No {
        return Err(TransferError::Stopped);
    }
    let came_of_it = shared.hand_over(to);
    let mut stopped = shared.stopped.subscribe();
    tokio::select! {
        biased;
        answer = came_of_it => answer.unwrap_or(Err(TransferError::Stopped)),
        _ = stopped.wait_for(Option::is_some) => Err(TransferError::Stopped),
    }
}

impl<W: Waiter> Driver<W> {
    /// Begins to make way where there is a reason to.
    pub(crate) fn make_way(&mut self, now: Time) {
        for order in self.shared.take_orders() {
            self.obey(order, now);
        }
        if self.shared.closing() == Closing::Graceful && self.handover.close_by.is_none() {
            self.begin_to_close(now);
        } else if self.leads && self.room == Room::Full && self.handover.full_at <= now {
            self.flee_full_disk(now);
        }
    }

    fn obey(&mut self, order: Order, now: Time) {
        let Order { to, answer } = order;
        let Some(to) = to.or_else(|| self.replica.heirs().first().copied()) else {
            return reply(answer, Err(self.no_heir()));
        };
        let ballot = self.replica.leader();
        match (self.replica.transfer(to, now), ballot) {
            (Ok(()), Some(ballot)) => {
                tracing::info!(replica = %self.id, %to, %ballot, "makes way");
                let deadline = now.after(self.config.election_timeout * 3);
                if let Some(before) = self.handover.asked.take() {
                    // The one before was given up, or there would be no new one.
                    reply(before.answer, Err(TransferError::GivenUp));
                }
                self.handover.asked = Some(Asked { to, ballot, deadline, answer });
            }
            (Ok(()), None) => unreachable!("a leader knows that it leads"),
            (Err(error), _) => reply(answer, Err(TransferError::Refused(error))),
        }
    }

    /// Why this node finds nobody to make way for.
    fn no_heir(&self) -> TransferError {
        if self.leads {
            return TransferError::NoHeir;
        }
        let hint = self.leader.map(Ballot::leader);
        TransferError::Refused(paxos_core::output::TransferError::NotLeader { hint })
    }

    /// A leader without space serves nobody: another voter may have some. Each attempt goes to the next
    /// in turn, for a node without space does not take over.
    fn flee_full_disk(&mut self, now: Time) {
        let heirs = self.replica.heirs();
        if heirs.is_empty() || self.replica.transferring().is_some() {
            return;
        }
        let to = heirs[self.handover.full as usize % heirs.len()];
        if self.replica.transfer(to, now).is_ok() {
            tracing::warn!(replica = %self.id, %to, "makes way, as its storage is full");
            let doublings = self.handover.full.min(DOUBLINGS_MAX);
            let wait = self.config.election_timeout * FULL_WAIT * (1 << doublings);
            self.handover.full_at = now.after(wait);
            self.handover.full = self.handover.full.saturating_add(1);
        }
    }

    /// The disk has space again.
    pub(crate) fn note_space(&mut self) {
        (self.handover.full, self.handover.full_at) = (0, Time::ZERO);
    }

    /// Whether commands wait although they could be refused: whoever leads next may have space.
    pub(crate) fn holds_commands(&self) -> bool {
        self.room == Room::Full && self.replica.transferring().is_some()
    }

    /// A node that closes makes way first.
    fn begin_to_close(&mut self, now: Time) {
        let mut wait = Duration::ZERO;
        if self.leads && self.replica.transferring().is_some() {
            wait = self.config.election_timeout;
        } else if let Some(to) = self.replica.heirs().first().copied()
            && self.replica.transfer(to, now).is_ok()
        {
            tracing::info!(replica = %self.id, %to, "makes way, as it is to stop");
            wait = self.config.election_timeout;
        }
        self.handover.close_by = Some(now.after(wait));
    }

    /// Whether a node that closes is to stay for its succession: until it has heard of the next leader
    /// and one heartbeat more, in which it turns away what peers forwarded before they heard; for an
    /// election timeout at most.
    pub(crate) fn is_succession_open(&mut self, now: Time) -> bool {
        let Some(close_by) = self.handover.close_by else {
            return true;
        };
        if !self.leads && self.leader.is_some() && !self.handover.succeeded {
            self.handover.succeeded = true;
            let linger = now.after(self.config.heartbeat_interval);
            self.handover.close_by = Some(close_by.min(linger));
        }
        let leads_on = self.leads && self.replica.transferring().is_none();
        now < close_by && !leads_on
    }

    /// Answers whoever asked, once it is known what came of it.
    pub(crate) fn settle_transfer(&mut self, now: Time) {
        let Some(Asked { to, ballot, deadline, .. }) = &self.handover.asked else {
            return;
        };
        let came_of_it = match self.replica.leader() {
            Some(leader) if leader == *ballot => {
                let under_way = self.replica.transferring().is_some();
                if under_way { None } else { Some(Err(TransferError::GivenUp)) }
            }
            Some(leader) if leader.leader() == *to => Some(Ok(leader)),
            Some(leader) => Some(Err(TransferError::OtherLeads(leader))),
            None => (*deadline <= now).then_some(Err(TransferError::NoLeader)),
        };
        if let Some(result) = came_of_it
            && let Some(asked) = self.handover.asked.take()
        {
            reply(asked.answer, result);
        }
    }

    /// How often a node that closes looks whether it may.
    pub(crate) fn closing_pace(&self) -> Duration {
        self.config.heartbeat_interval.min(crate::apply::SWEEP_INTERVAL / 10)
    }
}

fn reply(answer: Answer, result: Result<Ballot, TransferError>) {
    // Whoever asked and is gone does not mind.
    let _ = answer.send(result);
}
