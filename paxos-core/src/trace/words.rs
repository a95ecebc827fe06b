//! Events in words, one short line each.
//!
//! Owns: the `Display` of [`Event`] and of what is in it, [`Said`]. Replicas are `r1`, ballots
//! `round.leader`, a life its boot counter, a command is its payload where that is a plain word, otherwise its client and
//! request.

use core::fmt;

use super::{Delivery, Event, Packet};
use crate::ballot::Ballot;
use crate::durable::Write;
use crate::ids::{Priority, ReplicaId, Slot, Time};
use crate::message::{
    Accept, Body, Confirm, Confirmed, Connectivity, Fetched, Heartbeat, Promise, PromiseEntry,
    Removed, SlotState, Survey, Surveyed, Transfer,
};
use crate::output::{Halt, NotProposed};
use crate::value::{Command, CommandKind, Value};

/// A payload longer than this is not shown.
const WORD_MAX: usize = 24;
/// So many values of a message, facts of a batch, or commands of a value are told one by one.
const TOLD_MAX: usize = 6;

/// A message in words.
#[derive(Debug)]
pub struct Said<'a>(pub &'a Body);

/// A replica, shortly.
struct At(ReplicaId);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0.number())
    }
}

/// A ballot, or that there is none.
struct Perhaps(Option<Ballot>);

impl fmt::Display for Perhaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ballot) => ballot.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// One slot, or a range of them.
struct Range(Slot, Slot);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (from, through) if from == through => write!(f, "{}", from.number()),
            (from, Slot::MAX) => write!(f, "{}..", from.number()),
            (from, through) => write!(f, "{}..{}", from.number(), through.number()),
        }
    }
}

/// Several things with commas between them, and a word if there are too many to tell.
fn list<T>(
    f: &mut fmt::Formatter<'_>,
    things: impl ExactSizeIterator<Item = T>,
    tell: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    let count = things.len();
    for (place, thing) in things.take(TOLD_MAX).enumerate() {
        if place > 0 {
            f.write_str(", ")?;
        }
        tell(f, thing)?;
    }
    if count > TOLD_MAX { write!(f, " and {} more", count - TOLD_MAX) } else { Ok(()) }
}

fn command(f: &mut fmt::Formatter<'_>, command: &Command) -> fmt::Result {
    match command.kind {
        CommandKind::OpenSession { .. } => return f.write_str("a new session"),
        CommandKind::CloseSession { .. } => return f.write_str("the end of a session"),
        CommandKind::Raise { level } => return write!(f, "level {level}"),
        CommandKind::Apply | CommandKind::InSession { .. } => {}
    }
    let text = str::from_utf8(&command.payload).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=".contains(c);
    if (1..=WORD_MAX).contains(&text.len()) && text.chars().all(plain) {
        f.write_str(text)
    } else {
        write!(f, "c{}#{}", command.client.number(), command.request.number())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noop => f.write_str("no-op"),
            Self::Membership(membership) => write!(f, "membership of {}", membership.epoch()),
            Self::Batch(batch) if batch.commands().len() == 1 => command(f, &batch.commands()[0]),
            Self::Batch(batch) => {
                f.write_str("[")?;
                list(f, batch.commands().iter(), command)?;
                f.write_str("]")
            }
        }
    }
}

fn values(f: &mut fmt::Formatter<'_>, first: Slot, values: &[Value]) -> fmt::Result {
    list(f, values.iter().enumerate(), |f, (place, value)| {
        write!(f, "{} = {value}", first.plus(place as u64).number())
    })
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Body::Prepare(prepare) => {
                write!(f, "Prepare {} from slot {}", prepare.ballot, prepare.from.number())
            }
            Body::Promise(promise) => said_promise(f, promise),
            Body::Accept(Accept { ballot, committed, first, values: proposed }) => {
                write!(f, "Accept {ballot}: ")?;
                values(f, *first, proposed)?;
                write!(f, "; committed {}", committed.number())
            }
            Body::Accepted(accepted) => {
                let range = Range(accepted.first, accepted.last);
                write!(f, "Accepted {}: {range}", accepted.ballot)
            }
            Body::Reject(reject) => {
                write!(f, "Reject {}, has promised {}", reject.refused, reject.promised)
            }
            Body::Commit(commit) => {
                write!(f, "Commit {}: committed {}", commit.ballot, commit.committed.number())
            }
            Body::Heartbeat(heartbeat) => said_heartbeat(f, heartbeat),
            Body::Fetch(fetch) => write!(f, "Fetch {}", Range(fetch.from, fetch.through)),
            Body::Fetched(Fetched { first, values: fetched, committed, trimmed }) => {
                f.write_str("Fetched ")?;
                if fetched.is_empty() {
                    write!(f, "nothing of {}", first.number())?;
                }
                values(f, *first, fetched)?;
                write!(f, "; committed {}, trimmed {}", committed.number(), trimmed.number())
            }
            Body::Refused(refused) => {
                let (own, known) = (refused.refused.boot(), refused.remembered.boot());
                let other = if own == known { "another " } else { "" };
                write!(f, "Refused life {own}, remembers {other}life {known}")
            }
            Body::Confirm(Confirm { ballot, round }) => {
                write!(f, "Confirm {ballot}, round {round}")
            }
            Body::Confirmed(Confirmed { ballot, round }) => {
                write!(f, "Confirmed {ballot}, round {round}")
            }
            Body::Transfer(Transfer { ballot, committed, .. }) => {
                write!(f, "Transfer {ballot}: committed {}", committed.number())
            }
            Body::Survey(Survey { round }) => write!(f, "Survey, round {round}"),
            Body::Surveyed(Surveyed { asker, round, committed, highest }) => {
                let (asker, highest) = (asker.boot(), highest.number());
                write!(f, "Surveyed for life {asker}, round {round}: highest {highest}")?;
                write!(f, "; committed {}", committed.number())
            }
            Body::Removed(Removed { epoch, from }) => {
                write!(f, "Removed: {epoch} governs from {}", from.number())
            }
        }
    }
}

fn said_promise(f: &mut fmt::Formatter<'_>, promise: &Promise) -> fmt::Result {
    let range = Range(promise.from, promise.through);
    write!(f, "Promise {} for {range}: ", promise.ballot)?;
    if promise.entries.is_empty() {
        f.write_str("no votes")?;
    }
    list(f, promise.entries.iter(), |f, PromiseEntry { slot, state }| {
        write!(f, "{} ", slot.number())?;
        match state {
            SlotState::Accepted(ballot, value) => write!(f, "= {value} at {ballot}"),
            SlotState::Chosen(value) => write!(f, "= {value} chosen"),
            SlotState::Unknown(ballot) => write!(f, "unknown up to {ballot}"),
        }
    })?;
    write!(f, "; committed {}", promise.committed.number())
}

fn said_heartbeat(f: &mut fmt::Formatter<'_>, heartbeat: &Heartbeat) -> fmt::Result {
    let reach = match heartbeat.connectivity {
        Connectivity::Quorum => "a quorum",
        Connectivity::Partial => "too few",
    };
    write!(
        f,
        "Heartbeat {}: leader {}, promised {}, reaches {reach}, committed {}, durable {},",
        heartbeat.sequence,
        Perhaps(heartbeat.leader),
        Perhaps(heartbeat.promised),
        heartbeat.committed.number(),
        heartbeat.durable.number(),
    )?;
    if heartbeat.released > 0 {
        write!(f, " leases up to round {} given up,", heartbeat.released)?;
    }
    f.write_str(" hears")?;
    if heartbeat.priority != Priority::default() {
        write!(f, " with {}", heartbeat.priority)?;
    }
    if heartbeat.echoes.is_empty() {
        return f.write_str(" nobody");
    }
    heartbeat.echoes.iter().try_for_each(|echo| write!(f, " {}", At(echo.peer)))
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promised(ballot) => write!(f, "promised {ballot}"),
            Self::Accepted { slot, ballot, value } => {
                write!(f, "accepted {} = {value} at {ballot}", slot.number())
            }
            Self::Chosen { slot, value } => write!(f, "chosen {} = {value}", slot.number()),
            Self::Committed(slot) => write!(f, "committed {}", slot.number()),
            Self::Governs { from, membership } => {
                write!(f, "{} governs from {}", membership.epoch(), from.number())
            }
            Self::Trimmed(slot) => write!(f, "trimmed {}", slot.number()),
            Self::Refused { by, remembered } => {
                write!(f, "refused by {}, who remembers life {}", At(*by), remembered.boot())
            }
            Self::Peer { peer, incarnation } => {
                write!(f, "{} has life {}", At(*peer), incarnation.boot())
            }
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.open()) {
            (_, Some(message)) => Said(&message.body).fmt(f),
            (Self::Host(sealed) | Self::Encoded(sealed), None) => {
                write!(f, "a host's frame of {} bytes", sealed.bytes().len())
            }
            (Self::Snapshot(sealed), None) => {
                write!(f, "a frame of {} bytes about a snapshot", sealed.bytes().len())
            }
            (Self::Shared(_), None) => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { incarnation, applied } => {
                write!(f, "starts life {}, applied {}", incarnation.boot(), applied.number())
            }
            Self::Crashed { unproved } => write!(f, "crashes, {unproved} facts not proved"),
            Self::Paused { until } => {
                let until = until.since(Time::ZERO).as_secs_f64();
                write!(f, "stands still until {until:.6}")
            }
            Self::Sent { to, delivery, packet } => {
                write!(f, "-> {}", At(*to))?;
                if *delivery != Delivery::Sent {
                    write!(f, " ({})", delivery.name())?;
                }
                write!(f, "  {packet}")
            }
            Self::Received { from, packet } => {
                write!(f, "<- {}  {packet}", At(*from))
            }
            Self::Persist { sequence, writes } => {
                write!(f, "writes {}: ", sequence.number())?;
                list(f, writes.iter(), |f, write| write.fmt(f))
            }
            Self::Durable { through } => write!(f, "durable up to write {}", through.number()),
            Self::Timeout => f.write_str("timer"),
            Self::Apply { slot, value } => write!(f, "hands out {} = {value}", slot.number()),
            Self::Applied { through } => write!(f, "applied {}", through.number()),
            Self::Proposed { slot, ballot } => {
                write!(f, "proposes commands in {} at {ballot}", slot.number())
            }
            Self::NotProposed { reason } => f.write_str(refusal(reason)),
            Self::Role { role, leader } => write!(f, "{role}, leader {}", Perhaps(*leader)),
            Self::Committed { through } => write!(f, "committed {}", through.number()),
            Self::Chosen { slot, ballot, value } => {
                write!(f, "chosen: {} = {value} at {ballot}", slot.number())
            }
            Self::Load { from, through } => write!(f, "reads its log: {}", Range(*from, *through)),
            Self::Loaded { values } => write!(f, "read {values} values"),
            Self::ReadAsked { ticket } => write!(f, "takes read {ticket}"),
            Self::ReadsReady { through, point } => {
                write!(f, "reads up to {through} at point {}", point.number())
            }
            Self::ReadsLost { through } => write!(f, "gives up reads up to {through}"),
            Self::QuorumReadAsked { ticket } => write!(f, "takes quorum read {ticket}"),
            Self::QuorumReadsReady { through, point } => {
                write!(f, "quorum reads up to {through} at point {}", point.number())
            }
            Self::QuorumReadsLost { through, reason } => {
                write!(f, "gives up quorum reads up to {through}: {reason}")
            }
            Self::SnapshotWanted { from, above } => {
                write!(f, "wants a snapshot above {} of {}", above.number(), At(*from))
            }
            Self::SnapshotKept { slot } => write!(f, "keeps a snapshot of {}", slot.number()),
            Self::Installed { slot } => write!(f, "installs a snapshot of {}", slot.number()),
            Self::Halted { reason } => write!(f, "halts: {}", halted(reason)),
            Self::Note { text } => f.write_str(text),
        }
    }
}

fn refusal(reason: &NotProposed) -> &'static str {
    match reason {
        NotProposed::NotLeader { hint: Some(_) } => "refuses commands: another leads",
        NotProposed::NotLeader { hint: None } => "refuses commands: nobody leads",
        NotProposed::Busy => "refuses commands: the window is full",
        NotProposed::Transferring { .. } => "refuses commands: makes way for another",
        NotProposed::TooLarge { .. } => "refuses commands: too large",
        NotProposed::Empty => "refuses commands: there are none",
        NotProposed::Halted => "refuses commands: halted",
    }
}

fn halted(halt: &Halt) -> String {
    match halt {
        Halt::Refused { by, remembered, own } => {
            let other = if own.boot() == remembered.boot() { "another " } else { "" };
            let (own, known) = (own.boot(), remembered.boot());
            format!("{} remembers {other}life {known}, this is life {own}", At(*by))
        }
        Halt::AgreementBroken { slot } => format!("two values are chosen in {}", slot.number()),
        Halt::Removed { epoch, from } => {
            format!("was removed: {epoch} governs from {}", from.number())
        }
        Halt::LogLost { slot } => format!("the value of {} is nowhere", slot.number()),
    }
}
