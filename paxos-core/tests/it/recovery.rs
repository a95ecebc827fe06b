//! What a replica makes of a state machine and a log that do not reach equally far.

use paxos_core::config::Config;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::output::{Output, RecoverError, TrimError};
use paxos_core::replica::Replica;

use crate::bed::{blank, members, slot, snapshot, value};

fn recover(trimmed: u64, committed: u64, applied: u64) -> Result<Replica, RecoverError> {
    let mut recovered = blank(1, &members(3, 8));
    recovered.trimmed = slot(trimmed);
    recovered.committed = slot(committed);
    recovered.chosen =
        (committed + 1..=committed + 2).map(|at| (slot(at), value("known"))).collect();
    Replica::recover(Config::default(), recovered, slot(applied), 7, Time::ZERO)
}

/// p26: A state machine came back from a snapshot older than the beginning of the log, and the
/// slots between were skipped silently (dragonboat 156 and 369).
#[test]
fn p26_a_state_machine_below_the_trim_is_refused() {
    assert_eq!(
        recover(5, 9, 4).err(),
        Some(RecoverError::AppliedBelowTrim { applied: slot(4), trimmed: slot(5) })
    );
    assert!(recover(5, 9, 5).is_ok());
}

/// r38: After a crash the application had stored slot 100, the consensus log slot 90, and what lay
/// between was applied again or lost (Commonware 3727).
#[test]
fn r38_a_state_machine_ahead_of_the_recorded_prefix_is_given_nothing_twice() {
    // The log recorded slot 3 as committed, and holds 4 and 5; the machine has applied 4.
    let mut replica = recover(0, 3, 4).unwrap();
    assert_eq!(replica.status().applied, slot(4));
    assert_eq!(replica.status().committed, slot(5));
    assert_eq!(replica.status().values_ahead, 0, "nothing is kept beside the prefix");
    let mut handed = Vec::new();
    loop {
        match replica.poll_output() {
            Output::Apply { slot, .. } => handed.push(slot),
            Output::Idle { .. } => break,
            Output::Load { range, .. } => panic!("{range:?} is in memory or applied"),
            Output::Send { .. }
            | Output::Persist(_)
            | Output::ReadsReady { .. }
            | Output::ReadsLost { .. }
            | Output::QuorumReadsReady { .. }
            | Output::QuorumReadsLost { .. }
            | Output::SnapshotWanted { .. }
            | Output::Halt(_) => {}
        }
    }
    assert_eq!(handed, [slot(5)]);
}

/// r43: Values that were decided and not yet applied were trimmed from the log (`OmniPaxos` 131).
#[test]
fn r43_what_is_not_applied_cannot_be_trimmed() {
    let mut replica = recover(0, 3, 4).unwrap();
    replica.handle_snapshot(&snapshot(9, &members(3, 8)));
    let refused = TrimError { applied: slot(4), snapshot: slot(9) };
    assert_eq!(replica.trim(slot(5)), Err(refused));
    assert_eq!(replica.status().trimmed, Slot::ZERO);
    assert_eq!(replica.trim(slot(4)), Ok(()));
    assert_eq!(replica.status().trimmed, slot(4));
}

/// A directory that was formatted for a replica that its membership does not name.
#[test]
fn a_replica_outside_its_own_membership_is_refused() {
    let recovered = blank(4, &members(3, 8));
    let refused = Replica::recover(Config::default(), recovered, Slot::ZERO, 7, Time::ZERO);
    assert_eq!(refused.err(), Some(RecoverError::NotAMember(ReplicaId::new(4))));
}
