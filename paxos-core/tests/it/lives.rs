//! What a replica tells of its disk from one life to the next.

use paxos_core::config::Config;
use paxos_core::ids::{Slot, Time};
use paxos_core::message::Body;
use paxos_core::output::Output;
use paxos_core::replica::Replica;

use crate::bed::{Bed, accept, ballot, id, members, remembered, slot, snapshot};

/// D7 from the other side: whatever a life told, the next one tells, as long as the disk keeps it.
#[test]
fn d7_what_a_life_told_of_its_disk_the_next_one_tells_at_once() {
    let membership = members(3, 8);
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 1));
    bed.sync();
    bed.pass(Config::default().heartbeat_interval);
    let heartbeats = |bed: &Bed| {
        bed.sent_of(|body| if let Body::Heartbeat(sent) = body { Some(sent.clone()) } else { None })
    };
    let last = heartbeats(&bed).pop().unwrap();
    assert_eq!(last.durable, slot(3));
    for snapshot_at in [None, Some(5)] {
        let mut recovered = remembered(1, &membership, &bed.disk);
        recovered.snapshot = snapshot_at.map(|at| snapshot(at, &membership));
        let mut replica =
            Replica::recover(Config::default(), recovered, Slot::ZERO, 3, Time::ZERO).unwrap();
        replica.handle_timeout(Time::ZERO);
        let first = loop {
            let output = replica.poll_output();
            if let Output::Send { message, .. } = output {
                break message.body;
            }
            assert!(!matches!(output, Output::Idle { .. }), "it sends a heartbeat at once");
        };
        let Body::Heartbeat(first) = first else { panic!("{first:?} is sent before a heartbeat") };
        assert!(first.durable >= slot(snapshot_at.unwrap_or(3)), "{first:?}");
        assert_eq!(first.promised, Some(ballot(1, 2)));
    }
}
