//! Changing the membership: because somebody asks, and what comes of it; and with whom there are links
//! because of it.
//!
//! Owns: [`Changed`], [`Changes`], what is under way; the rules by which [`Driver`] asks its replica for a
//! change and tells its transport of the members. Whether a change may be made, and when it governs, the
//! replica says.
//! Invariants: (1) whoever asked is answered, once, and "not made" is said only of a change that never will
//! be; (2) the transport is told of everybody whom the replica has to do with, and of those who left for a
//! while longer, so that they are told that they did.

use paxos_core::ids::{Epoch, ReplicaId, Slot, Time};
use paxos_core::membership::{Change, Member, Membership};
use paxos_core::output::{Halt, ReconfigureError as Refused};
use paxos_core::port::{Format, Transport};
use paxos_core::replica::Replica;
use tokio::sync::oneshot;

use crate::driver::Driver;
use crate::error::ReconfigureError;
use crate::shared::{Closing, Shared};
use crate::waiters::Waiter;

/// For so many election timeouts a window that is full is waited for.
const BUSY_MAX: u32 = 4;
/// For so many election timeouts a former member stays linked: it may not know yet that it is one.
const FORMER_MAX: u32 = 20;

/// A membership that somebody asked for governs, and no earlier one is needed any more: who was a member
/// of those alone may be switched off.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Changed {
    /// Its number.
    pub epoch: Epoch,
    /// The first slot that it governs.
    pub from: Slot,
}

/// Whom to tell what came of it.
pub(crate) type Answer = oneshot::Sender<Result<Changed, ReconfigureError>>;

/// Somebody asks this node for a change.
#[derive(Debug)]
pub(crate) struct ChangeOrder {
    pub(crate) change: Change,
    pub(crate) answer: Answer,
}

/// A change that was proposed.
#[derive(Debug)]
struct Asked {
    membership: Membership,
    slot: Slot,
    /// From where it governs, once it is known to be chosen.
    from: Option<Slot>,
    answer: Answer,
}

/// What this node has to do about the membership.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Orders that wait for room in the window, and until when.
    busy: Vec<(ChangeOrder, Time)>,
    asked: Vec<Asked>,
    /// The oldest and the newest membership that the transport was told of.
    told: Option<(Epoch, Epoch)>,
    members: Vec<Member>,
    /// Who left, and until when the links to them stay.
    former: Vec<(Member, Time)>,
}

impl Changes {
    /// As a node starts: tells its transport of members that the log knows and the configuration does not. Where
    /// both know the same membership, the configuration's addresses and keys stand: they may be newer.
    pub(crate) fn begin(replica: &Replica, format: &Format, transport: &mut dyn Transport) -> Self {
        let (ends, configured) = (replica.epochs(), format.membership.epoch());
        if ends == (configured, configured) {
            let members = format.membership.members().cloned().collect();
            return Self { told: Some(ends), members, ..Self::default() };
        }
        transport.set_members(&replica.members());
        Self::default()
    }
}

impl Changes {
    /// When something is to be done though nothing happens.
    pub(crate) fn due(&self) -> Option<Time> {
        let busy = self.busy.iter().map(|(_, until)| *until);
        busy.chain(self.former.iter().map(|(_, until)| *until)).min()
    }
}

/// Asks a node for a change, and waits for what comes of it.
pub(crate) async fn reconfigure(
    shared: &Shared,
    change: Change,
) -> Result<Changed, ReconfigureError> {
    if shared.closing() != Closing::No {
        return Err(ReconfigureError::Stopped);
    }
    let came_of_it = shared.order_change(change);
    let mut stopped = shared.stopped.subscribe();
    tokio::select! {
        biased;
        answer = came_of_it => answer.unwrap_or(Err(ReconfigureError::Stopped)),
        _ = stopped.wait_for(Option::is_some) => Err(ReconfigureError::Stopped),
    }
}

impl<W: Waiter> Driver<W> {
    /// Asks for the changes that were ordered.
    pub(crate) fn begin_changes(&mut self, now: Time) {
        let until = now.after(self.config.election_timeout * BUSY_MAX);
        let new = self.shared.take_changes().into_iter().map(|order| (order, until));
        let mut orders = core::mem::take(&mut self.changes.busy);
        orders.extend(new);
        for (order, until) in orders {
            self.begin_change(order, until, now);
        }
    }

    fn begin_change(&mut self, order: ChangeOrder, until: Time, now: Time) {
        let ChangeOrder { change, answer } = order;
        let newest = self.replica.membership();
        let proposed = match newest.changed(change.clone()) {
            Err(error) if self.leads => Err(Refused::Change(error)),
            // The replica says who leads.
            Err(_) => {
                self.replica.reconfigure(change.clone(), now).map(|proposed| (proposed, None))
            }
            Ok(next) => {
                let mut members = self.replica.members();
                let known = |member: &&Member| !members.contains(member);
                let new: Vec<_> = next.members().filter(known).cloned().collect();
                members.retain(|member| new.iter().all(|new| new.id != member.id));
                members.extend(new);
                if self.leads
                    && let Err(why) = self.transport.admits(&members)
                {
                    reply(answer, Err(ReconfigureError::Links(why)));
                    return;
                }
                let proposed = self.replica.reconfigure(change.clone(), now);
                proposed.map(|proposed| (proposed, Some(next)))
            }
        };
        match proposed {
            Ok((proposed, Some(membership))) => {
                let epoch = membership.epoch();
                tracing::info!(replica = %self.id, %epoch, slot = %proposed.slot, "proposes a membership");
                let slot = proposed.slot;
                self.changes.asked.push(Asked { membership, slot, from: None, answer });
            }
            Ok((_, None)) => unreachable!("what gives no membership is not proposed"),
            Err(Refused::Busy) if now < until => {
                self.changes.busy.push((ChangeOrder { change, answer }, until));
            }
            Err(error) => reply(answer, Err(ReconfigureError::Refused(error))),
        }
    }

    /// Sees that there are links to whoever is a member, and to nobody else.
    pub(crate) fn follow_members(&mut self, now: Time) {
        let ends = self.replica.epochs();
        let is_over = |(_, until): &(Member, Time)| *until <= now;
        if self.changes.told != Some(ends) || self.changes.former.iter().any(is_over) {
            self.tell_transport(ends, now);
        }
    }

    /// Answers those whose change governs, or never will. After the status was written down, so that they
    /// find it there.
    pub(crate) fn settle_changes(&mut self) {
        if self.changes.asked.is_empty() {
            return;
        }
        let ends = self.replica.epochs();
        let memberships = self.replica.memberships();
        let committed = self.replica.committed();
        for mut asked in core::mem::take(&mut self.changes.asked) {
            let wanted = asked.membership.epoch();
            let found = memberships.iter().find(|(_, kept)| kept.epoch() == wanted);
            if let Some((from, kept)) = found
                && **kept == asked.membership
            {
                asked.from = asked.from.or(*from);
            }
            let changed = asked.from.map(|from| Changed { epoch: wanted, from });
            match changed {
                Some(changed) if ends.0 >= wanted && changed.from <= committed.next() => {
                    reply(asked.answer, Ok(changed));
                }
                None if ends.1 > wanted && found.is_none() => {
                    reply(asked.answer, Err(ReconfigureError::Unknown));
                }
                None if found.is_some() || committed >= asked.slot => {
                    reply(asked.answer, Err(ReconfigureError::Superseded));
                }
                Some(_) | None => self.changes.asked.push(asked),
            }
        }
    }

    /// The node stops because its replica does. One that is removed knows that somebody else goes on.
    pub(crate) fn end_changes(&mut self, halt: &Halt) {
        let Halt::Removed { epoch, .. } = halt else { return };
        for asked in core::mem::take(&mut self.changes.asked) {
            let wanted = asked.membership.epoch();
            let answer = match asked.from {
                Some(from) if wanted <= *epoch => Ok(Changed { epoch: wanted, from }),
                Some(_) | None => Err(ReconfigureError::Unknown),
            };
            reply(asked.answer, answer);
        }
    }

    fn tell_transport(&mut self, ends: (Epoch, Epoch), now: Time) {
        let members = self.replica.members();
        let is_member = |id: ReplicaId| members.iter().any(|member| member.id == id);
        let changes = &mut self.changes;
        let until = now.after(self.config.election_timeout * FORMER_MAX);
        let left = changes.members.drain(..).map(|member| (member, until));
        changes.former.extend(left);
        changes.former.retain(|(member, until)| !is_member(member.id) && *until > now);
        if changes.told.is_some_and(|told| told != ends) {
            let (id, epoch) = (self.id, ends.1);
            let count = members.len();
            tracing::info!(replica = %id, %epoch, members = count, "the members changed");
        }
        let former = changes.former.iter().map(|(member, _)| member);
        let linked: Vec<Member> = members.iter().chain(former).cloned().collect();
        self.transport.set_members(&linked);
        (changes.told, changes.members) = (Some(ends), members);
        self.timer.published = None;
    }
}

fn reply(answer: Answer, came_of_it: Result<Changed, ReconfigureError>) {
    // Whoever asked may have stopped waiting.
    let _ = answer.send(came_of_it);
}
