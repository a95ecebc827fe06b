//! Which frame a message becomes, and in which lane it waits (the book's Single-Socket Channel, its
//! sender's side).
//!
//! Owns: the choice of lane and coalescing key by kind of message. Knows no transport's state.
//! Invariants: a message is encoded once, whoever gets it; nothing large waits in the control lane;
//! only what a newer one of its kind makes void is coalesced.

use paxos_core::codec;
use paxos_core::ids::GroupId;
use paxos_core::message::{Body, Message};
use paxos_core::port::{Channel, CoalesceKey, Frame, Lane};

/// What is larger than this leaves the lane of its small kind: control for log, log for bulk.
pub(crate) const SMALL_MAX: usize = 64 << 10;

/// The frame of a message.
pub(crate) fn frame(message: &Message) -> Frame {
    let chunks = codec::encode(message);
    let mut frame = Frame { lane: Lane::Control, key: None, channel: Channel::Core, chunks };
    let large = frame.len() > SMALL_MAX;
    (frame.lane, frame.key) = place(&message.body, message.origin.group, large);
    frame
}

fn place(body: &Body, group: GroupId, large: bool) -> (Lane, Option<CoalesceKey>) {
    let key = |kind| Some(CoalesceKey(group.number() << 1 | kind));
    match body {
        // A newer watermark, or heartbeat, says all that an older one did.
        Body::Commit(_) => (Lane::Control, key(0)),
        Body::Heartbeat(_) => (Lane::Control, key(1)),
        Body::Promise(_) if large => (Lane::Log, None),
        Body::Prepare(_)
        | Body::Promise(_)
        | Body::Accepted(_)
        | Body::Reject(_)
        | Body::Refused(_)
        | Body::Confirm(_)
        | Body::Confirmed(_)
        | Body::Transfer(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => (Lane::Control, None),
        Body::Fetched(_) if large => (Lane::Bulk, None),
        Body::Accept(_) | Body::Fetch(_) | Body::Fetched(_) => (Lane::Log, None),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use paxos_core::ballot::Ballot;
    use paxos_core::ids::{
        ClientId, ClusterId, Epoch, Incarnation, LogClock, ReplicaId, RequestNumber, Slot,
    };
    use paxos_core::message::{
        Accept, Commit, Fetched, Origin, Prepare, Promise, PromiseEntry, SlotState,
    };
    use paxos_core::value::{Batch, Command, Value};

    use super::*;

    fn lane(body: impl Into<Body>) -> (Lane, Option<CoalesceKey>) {
        let message = Message {
            origin: Origin {
                cluster: ClusterId::new(1),
                group: GroupId::new(3),
                epoch: Epoch::FIRST,
                membership: paxos_core::agreement::MembershipDigest::default(),
                replica: ReplicaId::new(1),
                incarnation: Incarnation::new(1, 1),
            },
            body: body.into(),
        };
        let frame = frame(&message);
        assert_eq!(codec::decode(frame.chunks.concat().into()), Ok(message));
        (frame.lane, frame.key)
    }

    fn value(len: usize) -> Value {
        let payload = Bytes::from(vec![0; len]);
        let command = Command::apply(ClientId::new(1), RequestNumber::new(1), payload);
        Value::Batch(Batch::new(LogClock::default(), vec![command]))
    }

    #[test]
    fn lanes_go_by_kind_and_size() {
        let ballot = Ballot::new(1, ReplicaId::new(1));
        let slot = Slot::FIRST;
        let prepare = Prepare { ballot, from: slot };
        assert_eq!(lane(prepare), (Lane::Control, None));
        let committed = slot;
        let commit = Commit { ballot, committed };
        assert_eq!(lane(commit), (Lane::Control, Some(CoalesceKey(6))));
        let promise = |len| Promise {
            ballot,
            committed: Slot::ZERO,
            from: slot,
            through: Slot::MAX,
            entries: vec![PromiseEntry { slot, state: SlotState::Chosen(value(len)) }],
        };
        assert_eq!(lane(promise(10)).0, Lane::Control);
        assert_eq!(lane(promise(SMALL_MAX)).0, Lane::Log);
        let fetched =
            |len| Fetched { first: slot, values: vec![value(len)], committed, trimmed: Slot::ZERO };
        assert_eq!(lane(fetched(10)).0, Lane::Log);
        assert_eq!(lane(fetched(SMALL_MAX)).0, Lane::Bulk);
        let accept = Accept { ballot, committed, first: slot, values: vec![value(SMALL_MAX)] };
        assert_eq!(lane(accept), (Lane::Log, None));
    }
}
