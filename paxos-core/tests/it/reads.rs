//! Reads: the rules of docs/protocol.md §12, one by one, each quoted word for word.

use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::ids::{Epoch, Slot, Time};
use paxos_core::membership::{LeaseTerms, Member, Membership};
use paxos_core::message::{
    Accept, Body, Confirm, Confirmed, Connectivity, Heartbeat, Prepare, PromiseEntry, Reject,
    SlotState, Transfer,
};
use paxos_core::output::{ReadError, Recipients, Role};
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::Replica;

use crate::bed::{
    Bed, accepted, ballot, blank, id, promise, remembered, slot, value, voters_under,
};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// The rounds of Confirm that left since the last look, and to whom.
fn rounds(bed: &mut Bed) -> Vec<(Recipients, u64)> {
    let sent = bed.take_sent().into_iter();
    sent.filter_map(|(to, body)| {
        if let Body::Confirm(Confirm { round, .. }) = body { Some((to, round)) } else { None }
    })
    .collect()
}

/// **R1** A leader gives no read point before a prepare quorum of the membership that governs the next
/// slot has promised its ballot, and its committed prefix includes every slot that its promises named or
/// reported.
#[test]
fn r1_no_read_point_before_the_past_is_known() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    let entry =
        PromiseEntry { slot: slot(1), state: SlotState::Accepted(ballot(1, 2), value("a")) };
    bed.receive(id(2), promise(own, 1, slot(0), vec![entry]));
    assert_eq!(bed.role(), Role::Leader);
    bed.replica.read(bed.now).unwrap();
    bed.drain();
    bed.sync();
    assert_eq!(rounds(&mut bed), [], "what was named may have been chosen, and is not known to be");
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(rounds(&mut bed), [(Recipients::AllPeers, 1)]);
    bed.receive(id(3), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready.last().map(|(_, point)| *point), Some(slot(1)));

    // A prefix that was reported, and is not here yet.
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, slot(4), Vec::new()));
    bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!((bed.role(), rounds(&mut bed)), (Role::Leader, Vec::new()));
}

/// **R2** Without a lease, a read point is a leader's committed prefix, taken when a round of Confirm
/// begins, and stands once an accept quorum of the membership that governs the slot after it has confirmed
/// exactly that ballot and round, the leader itself counted. It serves the reads that were asked before the round began, and no other.
#[test]
fn r2_a_round_that_began_later_confirms_a_read() {
    let mut bed = Bed::new(1, 5);
    let own = bed.lead(&[2, 3]);
    bed.propose("a");
    bed.sync();
    bed.receive(id(2), accepted(own, 1, 1));
    bed.receive(id(3), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1));
    let first = bed.replica.read(bed.now).unwrap();
    let second = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(rounds(&mut bed), [(Recipients::AllPeers, 1)], "one round for both");
    let late = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(rounds(&mut bed), []);
    let lower = ballot(own.round() - 1, 1);
    bed.receive(id(2), Confirmed { ballot: lower, round: 1 });
    bed.receive(id(3), Confirmed { ballot: own, round: 2 });
    bed.receive(id(4), Confirmed { ballot: own, round: 1 });
    bed.receive(id(4), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, [], "another ballot, another round, and one voter twice");
    bed.receive(id(5), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, [(second, slot(1))]);
    assert!(first < second && second < late);
    assert_eq!(rounds(&mut bed), [(Recipients::AllPeers, 2)], "the next round for the late one");
    assert_eq!(bed.replica.status().reads_waiting, 1);
    for peer in [2, 3] {
        bed.receive(id(peer), Confirmed { ballot: own, round: 2 });
    }
    assert_eq!(bed.reads_ready.last(), Some(&(late, slot(1))));
    assert_eq!(bed.replica.status().reads_waiting, 0);
    assert_eq!(bed.replica.counters().read_rounds, 2);
}

/// **R3** A replica confirms a round only while it has promised nothing above its ballot; above, it
/// answers with Reject.
#[test]
fn r3_who_promised_more_does_not_confirm() {
    let mut bed = Bed::new(1, 3);
    bed.receive(
        id(2),
        Accept {
            ballot: ballot(3, 2),
            committed: slot(0),
            first: slot(1),
            values: vec![value("a")],
        },
    );
    bed.sync();
    bed.take_sent();
    let ask = |bed: &mut Bed, round, number| {
        bed.receive(id(2), Confirm { ballot: ballot(round, 2), round: number });
        bed.take_sent()
    };
    let to = Recipients::One(id(2));
    let confirmed =
        |round, number| Body::from(Confirmed { ballot: ballot(round, 2), round: number });
    assert_eq!(ask(&mut bed, 3, 8), [(to, confirmed(3, 8))]);
    assert_eq!(ask(&mut bed, 4, 9), [(to, confirmed(4, 9))], "and promises nothing by it");
    assert_eq!(bed.replica.status().promised, Some(ballot(3, 2)));
    let reject = Reject { refused: ballot(2, 2), promised: ballot(3, 2) };
    assert_eq!(ask(&mut bed, 2, 7), [(to, reject.into())]);
    bed.receive(id(3), Confirm { ballot: ballot(9, 2), round: 1 });
    assert_eq!(bed.take_sent(), [], "the leader of the ballot is another");
}

/// **R4** A read is answered from a state that has applied its read point.
///
/// That is the host's to keep; the core names the point, which may lie above what is applied.
#[test]
fn r4_the_point_is_what_is_committed_and_not_what_is_applied() {
    let mut bed = Bed::new(1, 1);
    bed.pass(Duration::from_millis(1));
    bed.sync();
    assert_eq!(bed.role(), Role::Leader);
    bed.propose("a");
    // The machine is slow: it has the value and has not said that it applied it.
    let batch = loop {
        if let Some(batch) = bed.pending.pop() {
            break batch;
        }
        bed.drain();
    };
    bed.replica.handle_durable(batch.into_durable(), bed.now);
    let ticket = bed.replica.read(bed.now).unwrap();
    assert_eq!(bed.replica.status().applied, slot(0));
    bed.drain();
    assert_eq!(bed.reads_ready, [(ticket, slot(1))]);
}

/// **R5** Rounds are numbered within a life, each number used for one round. A leader that stops
/// leading answers no read that waits.
#[test]
fn r5_a_reign_that_ends_loses_its_reads() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    let ticket = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(rounds(&mut bed), [(Recipients::AllPeers, 1)]);
    bed.receive(id(2), Reject { refused: own, promised: ballot(own.round() + 1, 2) });
    assert_eq!((bed.reads_lost.as_slice(), bed.role()), ([ticket].as_slice(), Role::Follower));
    let hint = None;
    assert_eq!(bed.replica.read(bed.now), Err(ReadError::NotLeader { hint }));
    bed.receive(id(3), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, []);
    let again = bed.lead(&[2]);
    assert!(again > own);
    let next = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(rounds(&mut bed), [(Recipients::AllPeers, 2)], "no number twice");
    bed.receive(id(3), Confirmed { ballot: again, round: 1 });
    assert_eq!(bed.reads_ready, [], "an answer of the first reign counts for nothing");
    bed.receive(id(3), Confirmed { ballot: again, round: 2 });
    assert_eq!(bed.reads_ready, [(next, slot(0))]);
}

/// A round whose messages are lost is asked for again, of those that have not answered.
#[test]
fn a_round_without_a_quorum_is_asked_for_again() {
    let mut bed = Bed::new(1, 5);
    let own = bed.lead(&[2, 3]);
    bed.replica.read(bed.now).unwrap();
    bed.drain();
    rounds(&mut bed);
    bed.receive(id(2), Confirmed { ballot: own, round: 1 });
    bed.hear(&[2, 3, 4, 5], |_, _| {});
    bed.pass(HEARTBEAT);
    let again = rounds(&mut bed);
    assert_eq!(again, [3, 4, 5].map(|peer| (Recipients::One(id(peer)), 1)));
}

/// Those that confirm must meet every prepare quorum: that is what an accept quorum does, whatever
/// the sizes.
#[test]
fn a_round_stands_with_an_accept_quorum_whatever_its_size() {
    for (prepare, accept) in [(2, 4), (4, 2)] {
        let membership = voters_under(5, QuorumRule::Counts { prepare, accept });
        let mut bed = Bed::start(blank(1, &membership), Config::default());
        let promisers: Vec<u16> = (2..=prepare).collect();
        let own = bed.campaign(&[2, 3, 4, 5]);
        bed.sync();
        for peer in promisers {
            bed.receive(id(peer), promise(own, 1, slot(0), Vec::new()));
        }
        assert_eq!(bed.role(), Role::Leader, "{prepare} and {accept}");
        let ticket = bed.replica.read(bed.now).unwrap();
        bed.drain();
        for peer in 2..=accept {
            assert_eq!(bed.reads_ready, [], "{peer} of {accept}");
            bed.receive(id(peer), Confirmed { ballot: own, round: 1 });
        }
        assert_eq!(bed.reads_ready, [(ticket, slot(0))]);
    }
}

/// In a grid of two rows, a full row elects; a column chooses and confirms, and a row does neither.
#[test]
fn a_grid_elects_by_a_row_and_chooses_and_confirms_by_a_column() {
    let membership = voters_under(6, QuorumRule::grid(2, 3).unwrap());
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    let own = bed.campaign(&[2, 3, 4, 5, 6]);
    bed.sync();
    for peer in [2, 4, 5] {
        bed.receive(id(peer), promise(own, 1, slot(0), Vec::new()));
        assert_eq!(bed.role(), Role::Candidate, "columns elect nobody: {peer}");
    }
    bed.receive(id(3), promise(own, 1, slot(0), Vec::new()));
    assert_eq!(bed.role(), Role::Leader, "1, 2 and 3 are a row");

    bed.propose("a");
    bed.sync();
    for peer in [2, 3] {
        bed.receive(id(peer), accepted(own, 1, 1));
        assert_eq!(bed.committed(), slot(0), "a row chooses nothing");
    }
    bed.receive(id(5), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1), "2 and 5 are a column");

    let ticket = bed.replica.read(bed.now).unwrap();
    bed.drain();
    for peer in [2, 3] {
        bed.receive(id(peer), Confirmed { ballot: own, round: 1 });
        assert_eq!(bed.reads_ready, [], "a row confirms nothing");
    }
    bed.receive(id(4), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, [(ticket, slot(1))], "1 and 4 are a column");
}

/// An observer confirms nothing.
#[test]
fn only_voters_confirm() {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let observers = vec![Member::new(id(4))];
    let membership =
        Membership::new(Epoch::FIRST, voters, observers, QuorumRule::Majority, 8).unwrap();
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    let own = bed.lead(&[2]);
    let ticket = bed.replica.read(bed.now).unwrap();
    bed.drain();
    let confirmed = Confirmed { ballot: own, round: 1 };
    bed.receive(id(4), confirmed);
    assert_eq!(bed.reads_ready, []);
    bed.receive(id(3), confirmed);
    assert_eq!(bed.reads_ready, [(ticket, slot(0))]);
}

/// A bed whose membership has leases of 400 ms, by clocks that are off by a thousandth at most.
fn leased(own: u16) -> Bed {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let terms = LeaseTerms::new(LEASE, 1000).unwrap();
    let membership = Membership::majority(voters).unwrap().with_lease(terms);
    let mut bed = Bed::start(blank(own, &membership), Config::default());
    // Whatever this replica granted before it started is over.
    bed.now = bed.now.after(LEASE);
    bed
}

const LEASE: Duration = Duration::from_millis(400);

/// **R7** A leader holds a lease until D · (1 − ρ) / (1 + ρ) has passed on its own clock since it first
/// asked for a round that an accept quorum has confirmed. While it holds one, a read point is its
/// committed prefix, at once, by a look at its clock that is later than the read.
#[test]
fn r7_a_lease_counts_from_when_it_was_asked_for() {
    let mut bed = leased(1);
    let own = bed.lead(&[2]);
    let asked_at = bed.now;
    assert_eq!(
        rounds(&mut bed),
        [(Recipients::AllPeers, 1)],
        "a lease is asked for before any read"
    );
    assert_eq!(bed.replica.status().lease_until, None);
    bed.now = bed.now.after(Duration::from_millis(50));
    bed.receive(id(2), Confirmed { ballot: own, round: 1 });
    let held = LEASE * 999 / 1001;
    assert_eq!(bed.replica.status().lease_until, Some(asked_at.after(held)));
    assert_eq!(bed.replica.counters().read_rounds, 1);
    let served = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(bed.reads_ready, [(served, slot(0))], "without a round");
    assert_eq!(bed.replica.counters().lease_reads, 1);

    bed.now = asked_at.after(held);
    let waits = bed.replica.read(bed.now).unwrap();
    bed.drain();
    assert_eq!(bed.reads_ready.len(), 1, "the lease is over");
    assert!(bed.replica.counters().read_rounds > 1);
    let round = bed.replica.counters().read_rounds;
    bed.receive(id(2), Confirmed { ballot: own, round });
    assert_eq!(bed.reads_ready.last(), Some(&(waits, slot(0))));
}

/// **R6** Whoever confirms a round grants its leader a lease: until D has passed on its own clock since
/// then, it answers no Prepare of another replica above its promise, and raises no ballot of its own. It
/// confirms no round of a ballot below one that it granted a lease.
#[test]
fn r6_a_grantor_promises_nobody_else() {
    let confirmed = |round| Body::from(Confirmed { ballot: ballot(1, 2), round });
    let promised = |bed: &mut Bed, round, from| {
        bed.receive(id(from), Prepare { ballot: ballot(round, from), from: slot(1) });
        bed.sync();
        bed.replica.status().promised
    };
    let mut bed = leased(1);
    bed.receive(id(2), Confirm { ballot: ballot(1, 2), round: 7 });
    assert_eq!(bed.take_sent(), [(Recipients::One(id(2)), confirmed(7))]);
    let granted_at = bed.now;
    assert_eq!(promised(&mut bed, 2, 3), None);
    assert_eq!(bed.take_sent(), [], "not even a Reject: it will ask again");
    assert_eq!(bed.replica.counters().prepares_withheld, 1);
    // A round of a lower ballot that comes late is not confirmed: it would be no grant.
    bed.receive(id(3), Confirm { ballot: ballot(0, 3), round: 99 });
    assert_eq!(bed.take_sent(), []);
    assert_eq!(promised(&mut bed, 2, 3), None);
    bed.now = granted_at.after(LEASE * 999 / 1000);
    assert_eq!(promised(&mut bed, 2, 3), None);
    bed.now = granted_at.after(LEASE);
    assert_eq!(promised(&mut bed, 2, 3), Some(ballot(2, 3)));

    // Who holds the lease may campaign again: it gave it up.
    let mut bed = leased(1);
    bed.receive(id(2), Confirm { ballot: ballot(1, 2), round: 7 });
    assert_eq!(promised(&mut bed, 3, 2), Some(ballot(3, 2)));
}

#[test]
fn r6_a_grantor_raises_no_ballot_of_its_own() {
    let campaigns_after = |grants: bool| {
        let mut bed = leased(1);
        let beat = |bed: &mut Bed| {
            bed.pass(HEARTBEAT);
            bed.hear(&[2, 3], |_, _| {});
        };
        while bed.replica.counters().campaigns == 0 {
            // Replica 2 leads, and tells so by nothing but its rounds.
            if grants && bed.now < Time::ZERO.after(HEARTBEAT * 40) {
                bed.receive(id(2), Confirm { ballot: ballot(1, 2), round: 7 });
            }
            beat(&mut bed);
        }
        bed.now
    };
    let unbound = campaigns_after(false);
    assert!(unbound < Time::ZERO.after(HEARTBEAT * 20), "{unbound:?}");
    let last_grant = Time::ZERO.after(HEARTBEAT * 39);
    let bound = campaigns_after(true);
    assert!(bound >= last_grant.after(LEASE), "{bound:?}");
    assert!(bound < last_grant.after(LEASE + HEARTBEAT * 20), "{bound:?}");
}

/// **R8** A lease ends when its leader stops leading or hands over. The leader tells the highest round that
/// it no longer relies on; grants of rounds up to that one end, others do not.
#[test]
fn r8_a_lease_that_was_given_up_binds_nobody() {
    let mut bed = leased(1);
    let own = bed.lead(&[2]);
    bed.receive(id(2), Confirmed { ballot: own, round: 1 });
    assert!(bed.replica.status().lease_until.is_some());
    bed.take_sent();
    bed.receive(id(3), Prepare { ballot: ballot(9, 3), from: slot(1) });
    assert_eq!(bed.replica.status().lease_until, None);
    let told =
        |(_, body)| if let Body::Heartbeat(beat) = body { Some(beat.released) } else { None };
    assert_eq!(bed.take_sent().into_iter().find_map(told), Some(1));

    let promises = |released| {
        let mut bed = leased(1);
        bed.receive(id(2), Confirm { ballot: ballot(1, 2), round: 7 });
        bed.hear(&[2], |_, heartbeat| heartbeat.released = released);
        bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(1) });
        bed.replica.status().promised.is_some()
    };
    assert!(!promises(6), "the grant is of a later round");
    assert!(promises(7));
}

/// **R9** A replica that starts answers no Prepare above its promise, and raises no ballot, until D has
/// passed: it may have granted before.
#[test]
fn r9_a_replica_that_starts_sits_out_a_lease() {
    let membership = leased(1).replica.membership().clone();
    let mut bed = Bed::start(remembered(1, &membership, &[]), Config::default());
    let started_at = bed.now;
    let prepare = Prepare { ballot: ballot(2, 3), from: slot(1) };
    bed.now = started_at.after(LEASE * 999 / 1000);
    bed.receive(id(3), prepare);
    assert_eq!(bed.replica.status().promised, None);
    bed.now = started_at.after(LEASE);
    bed.receive(id(3), prepare);
    assert_eq!(bed.replica.status().promised, Some(ballot(2, 3)));
}

#[test]
fn an_election_timeout_below_the_lease_is_refused() {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let terms = LeaseTerms::new(Duration::from_millis(501), 1000).unwrap();
    let membership = Membership::majority(voters).unwrap().with_lease(terms);
    let recovered = blank(1, &membership);
    let refused = Replica::recover(Config::default(), recovered, Slot::ZERO, 1, Time::ZERO);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("election_timeout must be at least the lease"), "{error}");
    let ms = Duration::from_millis;
    assert_eq!(LeaseTerms::new(ms(400), 1_000_000), None);
    assert_eq!(LeaseTerms::new(ms(400), 0), None, "no clock is perfect");
    assert_eq!(LeaseTerms::new(Duration::ZERO, 1), None);
    assert_eq!(LeaseTerms::new(ms(60_001), 1), None);
    assert!(LeaseTerms::new(ms(1000), 1).unwrap().held() < ms(1000));
    assert_eq!(LeaseTerms::new(ms(1000), 600_000).unwrap().held(), ms(250));
}

#[test]
fn r8_a_leader_that_hands_over_gives_its_lease_up_first() {
    let mut bed = leased(1);
    let own = bed.lead(&[2]);
    bed.receive(id(2), Confirmed { ballot: own, round: 1 });
    bed.hear(&[2, 3], |_, heartbeat| heartbeat.connectivity = Connectivity::Quorum);
    assert!(bed.replica.status().lease_until.is_some());
    bed.take_sent();
    bed.replica.transfer(id(2), bed.now).unwrap();
    bed.drain();
    assert_eq!(bed.replica.status().lease_until, None);
    let sent = bed.take_sent();
    let transfer = Transfer { ballot: own, committed: slot(0), released: 1 };
    assert!(sent.contains(&(Recipients::One(id(2)), transfer.into())), "{sent:?}");
    let told = |(_, body): &(_, Body)| matches!(body, Body::Heartbeat(beat) if beat.released == 1);
    assert!(sent.iter().any(told), "{sent:?}");
    // A round would be granted another lease.
    bed.replica.read(bed.now).unwrap();
    bed.pass(HEARTBEAT);
    assert_eq!(rounds(&mut bed), []);

    // The heir is itself a grantor.
    let mut heir = leased(2);
    heir.receive(id(1), Confirm { ballot: ballot(1, 1), round: 3 });
    let campaigns = |bed: &mut Bed, released| {
        let leads = |peer, heartbeat: &mut Heartbeat| {
            heartbeat.connectivity = Connectivity::Quorum;
            heartbeat.leader = (peer == 1).then_some(ballot(1, 1));
        };
        bed.pass(HEARTBEAT);
        bed.hear(&[1, 3], leads);
        bed.receive(id(1), Transfer { ballot: ballot(1, 1), committed: slot(0), released });
        bed.replica.counters().campaigns
    };
    assert_eq!(campaigns(&mut heir, 2), 0);
    assert_eq!(campaigns(&mut heir, 3), 1);
}
