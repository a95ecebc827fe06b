//! Handing over: the rules of docs/protocol.md §10 on it, one by one, each quoted word for word.

use std::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::config::Config;
use paxos_core::ids::{LogClock, Priority, ReplicaId, Slot};
use paxos_core::membership::{Member, Membership};
use paxos_core::message::{Body, Commit, Connectivity, Heartbeat, Prepare, Reject, Transfer};
use paxos_core::output::{NotProposed, Recipients, Role, TransferError};
use paxos_core::quorum::QuorumRule;

use crate::bed::{Bed, accept, accepted, ballot, blank, command, id, members, promise, slot};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// A heartbeat of somebody who could lead.
fn well(_: u16, heartbeat: &mut Heartbeat) {
    heartbeat.connectivity = Connectivity::Quorum;
}

/// Replica 1, the leader of three, whose peers could lead too.
fn leader() -> (Bed, Ballot) {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    bed.hear(&[2, 3], well);
    bed.sync();
    bed.take_sent();
    (bed, own)
}

/// Replica 2 of three, which hears and follows replica 1 and is connected to all.
fn follower() -> (Bed, Ballot) {
    let mut bed = Bed::new(2, 3);
    let led = ballot(4, 1);
    bed.pass(HEARTBEAT);
    bed.hear(&[1, 3], |peer, heartbeat| {
        well(peer, heartbeat);
        heartbeat.leader = (peer == 1).then_some(led);
    });
    bed.receive(id(1), accept(led, 1, &["a"], 0));
    bed.sync();
    bed.take_sent();
    assert_eq!(bed.replica.leader(), Some(led));
    (bed, led)
}

fn transfers(bed: &mut Bed) -> Vec<(Recipients, Transfer)> {
    let sent = bed.take_sent().into_iter();
    sent.filter_map(
        |(to, body)| {
            if let Body::Transfer(transfer) = body { Some((to, transfer)) } else { None }
        },
    )
    .collect()
}

fn try_propose(bed: &mut Bed) -> Option<NotProposed> {
    let commands = vec![command("late")];
    let tried = bed.replica.propose(commands.clone(), LogClock::default(), bed.now);
    bed.drain();
    tried.err().map(|refused| {
        assert_eq!(refused.commands, commands, "what is not proposed is handed back");
        refused.reason
    })
}

fn transfer(bed: &mut Bed, to: u16) -> Result<(), TransferError> {
    let asked = bed.replica.transfer(id(to), bed.now);
    bed.drain();
    asked
}

/// **E7** A leader that hands over assigns no new slot until it stops leading, or until an election
/// timeout has passed since it was asked to: then it goes on as before.
#[test]
fn e7_no_slot_is_assigned_for_an_election_timeout() {
    let (mut bed, own) = leader();
    bed.propose("a");
    bed.sync();
    assert_eq!(transfer(&mut bed, 2), Ok(()));
    let held = Some(NotProposed::Transferring { to: id(2) });
    assert_eq!(try_propose(&mut bed), held);
    assert_eq!(transfers(&mut bed), [], "what is in flight may still be chosen here");
    bed.receive(id(3), accepted(own, 1, 1));
    let said = (Recipients::One(id(2)), Transfer { ballot: own, committed: slot(1), released: 0 });
    assert_eq!(transfers(&mut bed), [said], "to the one that is to lead, and nobody else");
    assert_eq!(try_propose(&mut bed), held);
    for _ in 0..4 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], well);
        assert_eq!(bed.replica.transferring(), Some(id(2)));
        assert_eq!(transfers(&mut bed), [said], "it may be lost, and is said again");
    }
    bed.pass(HEARTBEAT);
    bed.hear(&[2, 3], well);
    assert_eq!((bed.role(), bed.replica.transferring()), (Role::Leader, None));
    assert_eq!(bed.replica.counters().transfers_given_up, 1);
    assert_eq!(try_propose(&mut bed), None, "it goes on as before");
    bed.pass(HEARTBEAT);
    assert_eq!(transfers(&mut bed), []);
}

/// What nobody accepts does not hold a transfer up for ever: half of the time is for waiting.
#[test]
fn what_is_in_flight_is_waited_for_half_of_the_time() {
    let (mut bed, own) = leader();
    bed.propose("a");
    bed.sync();
    transfer(&mut bed, 3).unwrap();
    for step in 1..=4 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], well);
        let told = transfers(&mut bed);
        assert_eq!(!told.is_empty(), step >= 3, "step {step}: {told:?}");
    }
    assert_eq!(bed.replica.status().slots_in_flight, 1);
    let above = ballot(own.round() + 1, 3);
    bed.receive(id(3), Prepare { ballot: above, from: slot(1) });
    assert_eq!((bed.role(), bed.replica.status().promised), (Role::Follower, Some(above)));
    let counters = bed.replica.counters();
    assert_eq!((counters.transfers_done, counters.transfers_given_up), (1, 0));
}

/// **E8** A leader hands over to a voter that is connected, says that it is quorum-connected, and has
/// committed, or accepted under this leader, a slot no more than a window below the leader's prefix; to
/// one at a time.
#[test]
fn e8_who_may_take_over() {
    let (mut bed, own) = leader();
    assert_eq!(transfer(&mut bed, 1), Err(TransferError::AlreadyLeads));
    assert_eq!(transfer(&mut bed, 9), Err(TransferError::NotAVoter(id(9))));
    bed.hear(&[3], |_, heartbeat| heartbeat.connectivity = Connectivity::Partial);
    assert_eq!(transfer(&mut bed, 3), Err(TransferError::NotConnected(id(3))));
    bed.pass(HEARTBEAT);
    bed.hear(&[2], well);
    bed.hear(&[3], well);
    for at in 1..=9 {
        bed.propose("a");
        bed.sync();
        bed.receive(id(3), accepted(own, at, at));
    }
    let prefix = |committed: u64| {
        move |_: u16, heartbeat: &mut Heartbeat| {
            heartbeat.connectivity = Connectivity::Quorum;
            heartbeat.committed = slot(committed);
        }
    };
    bed.hear(&[2], prefix(0));
    let behind = TransferError::Behind { committed: slot(0), wanted: slot(1) };
    assert_eq!(transfer(&mut bed, 2), Err(behind), "a window of 8 behind 9");
    bed.hear(&[2], prefix(1));
    assert_eq!(bed.replica.heirs(), [id(3), id(2)], "who votes is near, whatever it said before");
    bed.hear(&[2], prefix(0));
    bed.receive(id(2), accepted(ballot(own.round() + 7, 1), 9, 9));
    assert_eq!(bed.replica.heirs(), [id(3)], "a vote under another ballot says nothing");
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(transfer(&mut bed, 2), Ok(()));
    bed.hear(&[3], prefix(9));
    assert_eq!(transfer(&mut bed, 3), Err(TransferError::UnderWay { to: id(2) }));
    for _ in 0..7 {
        bed.pass(HEARTBEAT);
    }
    assert_eq!(transfer(&mut bed, 2), Err(TransferError::NotLeader { hint: None }));
    assert_eq!(bed.replica.heirs(), []);
}

/// The best is named first: who is preferred, and of equals the one that has committed most.
#[test]
fn heirs_are_named_in_order() {
    let tell = |two: (u8, u64), three: (u8, u64)| {
        move |peer: u16, heartbeat: &mut Heartbeat| {
            let (priority, committed) = if peer == 2 { two } else { three };
            heartbeat.connectivity = Connectivity::Quorum;
            heartbeat.priority = Priority::new(priority);
            heartbeat.committed = slot(committed);
        }
    };
    let (mut bed, _) = leader();
    bed.hear(&[2, 3], tell((0, 4), (0, 5)));
    assert_eq!(bed.replica.heirs(), [id(3), id(2)]);
    bed.hear(&[2, 3], tell((1, 4), (0, 5)));
    assert_eq!(bed.replica.heirs(), [id(2), id(3)]);
}

/// An observer is connected, and votes on nothing.
#[test]
fn an_observer_is_no_heir() {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let observers = vec![Member::new(id(4))];
    let epoch = paxos_core::ids::Epoch::FIRST;
    let membership = Membership::new(epoch, voters, observers, QuorumRule::Majority, 8).unwrap();
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    bed.lead(&[2]);
    bed.hear(&[4], well);
    assert_eq!(transfer(&mut bed, 4), Err(TransferError::NotAVoter(id(4))));
    assert_eq!(bed.replica.heirs(), []);
}

/// **E9** A replica that hears a Transfer under the ballot of the leader that it hears and follows
/// campaigns at once. E3 does not hold it back; E2, E4, E5 and a grant (R6, R9) do. Under any other ballot a Transfer is
/// no reason to campaign.
#[test]
fn e9_who_hears_a_transfer_campaigns() {
    let (mut bed, led) = follower();
    let asked = |ballot| Transfer { ballot, committed: slot(1), released: 0 };
    for other in [ballot(3, 1), ballot(5, 1)] {
        bed.receive(id(1), asked(other));
        assert_eq!(bed.role(), Role::Follower, "{other} is not the ballot that it follows");
    }
    bed.receive(id(3), asked(led));
    assert_eq!(bed.role(), Role::Follower, "it is not of the one who leads");
    assert_eq!(bed.replica.counters().transfers_ignored, 2);
    bed.receive(id(1), asked(led));
    assert_eq!(bed.role(), Role::Candidate);
    let own = bed.replica.status().promised.unwrap();
    assert!(own > ballot(5, 1), "above every ballot that was heard of");
    bed.receive(id(1), asked(led));
    assert_eq!(bed.replica.counters().campaigns, 1, "a second copy begins nothing");
    // The leader has not heard of it yet, and says that it is well.
    bed.hear(&[1], |peer, heartbeat| {
        well(peer, heartbeat);
        heartbeat.leader = Some(led);
    });
    assert_eq!(bed.role(), Role::Candidate, "that leader made way itself");
    bed.sync();
    bed.receive(id(3), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.replica.leader(), Some(own));
    bed.receive(id(1), asked(led));
    assert_eq!((bed.role(), bed.replica.counters().campaigns), (Role::Leader, 1));
}

/// E2, E4 and E5 hold for whoever is asked to take over.
#[test]
fn e9_who_could_not_lead_does_not_campaign() {
    // Not connected to a quorum.
    let (mut bed, led) = follower();
    let asked = Transfer { ballot: led, committed: slot(1), released: 0 };
    for _ in 0..4 {
        bed.pass(HEARTBEAT);
        bed.hear(&[1], |_, heartbeat| {
            heartbeat.leader = Some(led);
            heartbeat.connectivity = Connectivity::Quorum;
            heartbeat.echoes.clear();
        });
    }
    bed.pass(3 * HEARTBEAT);
    assert_eq!(bed.replica.status().connectivity, Connectivity::Partial);
    assert_eq!(bed.replica.leader(), Some(led));
    bed.receive(id(1), asked);
    assert_eq!(bed.role(), Role::Follower);

    // A disk that has stalled.
    let (mut bed, led) = follower();
    bed.receive(id(1), accept(led, 2, &["b"], 1));
    for _ in 0..25 {
        bed.pass(HEARTBEAT);
        bed.hear(&[1, 3], |peer, heartbeat| {
            well(peer, heartbeat);
            heartbeat.leader = (peer == 1).then_some(led);
        });
    }
    assert_eq!(bed.replica.leader(), Some(led));
    bed.receive(id(1), asked);
    assert_eq!(bed.role(), Role::Follower, "its own promise would not become durable");

    // It stood still, and hears what was said meanwhile.
    let (mut bed, led) = follower();
    bed.now = bed.now.after(Duration::from_secs(5));
    bed.hear(&[1, 3], |peer, heartbeat| {
        well(peer, heartbeat);
        heartbeat.leader = (peer == 1).then_some(led);
    });
    bed.receive(id(1), asked);
    assert_eq!((bed.role(), bed.replica.counters().campaigns), (Role::Follower, 0));
}

/// The one that took over tells of its promise by a heartbeat before its Prepare is durable: the
/// leader that made way gives it the time to win, and does not outbid it.
#[test]
fn a_leader_that_made_way_does_not_outbid_its_heir() {
    for by_reject in [false, true] {
        let (mut bed, own) = leader();
        transfer(&mut bed, 2).unwrap();
        let above = ballot(own.round() + 1, 2);
        if by_reject {
            bed.receive(id(3), Reject { refused: own, promised: above });
        } else {
            bed.hear(&[2], |peer, heartbeat| {
                well(peer, heartbeat);
                heartbeat.promised = Some(above);
            });
        }
        assert_eq!((bed.role(), bed.replica.counters().transfers_done), (Role::Follower, 1));
        for _ in 0..4 {
            bed.pass(HEARTBEAT);
            bed.hear(&[2, 3], well);
        }
        assert_eq!(bed.replica.counters().campaigns, 1, "the one before it led");
    }
}

/// Reads that wait are lost with the reign, as with any other that ends, and are served until then.
#[test]
fn reads_are_served_until_the_reign_ends() {
    let (mut bed, own) = leader();
    transfer(&mut bed, 2).unwrap();
    let first = bed.replica.read(bed.now).unwrap();
    bed.drain();
    bed.receive(id(3), paxos_core::message::Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, [(first, slot(0))]);
    let late = bed.replica.read(bed.now).unwrap();
    bed.drain();
    bed.receive(id(2), Prepare { ballot: ballot(own.round() + 1, 2), from: slot(1) });
    assert_eq!(bed.reads_lost, [late]);
}

fn with_priority(own: u16, priority: u8) -> Bed {
    let config = Config { priority: Priority::new(priority), ..Config::default() };
    Bed::start(blank(own, &members(3, 8)), config)
}

/// **E10** A replica whose election timer is due, while a connected and quorum-connected voter says a
/// higher priority, gives way to it once: it waits for one more `election_jitter`.
#[test]
fn e10_who_is_preferred_campaigns_first() {
    let campaigns_after = |own: u8, other: u8, connectivity: Connectivity| {
        let mut bed = with_priority(1, own);
        for step in 1..100 {
            bed.pass(HEARTBEAT / 4);
            bed.hear(&[2, 3], |peer, heartbeat| {
                heartbeat.connectivity = connectivity;
                heartbeat.priority = Priority::new(if peer == 2 { other } else { 0 });
            });
            if bed.role() == Role::Candidate {
                return step * HEARTBEAT / 4;
            }
        }
        panic!("it waits for ever")
    };
    let usual = campaigns_after(1, 1, Connectivity::Quorum);
    assert_eq!(campaigns_after(2, 1, Connectivity::Quorum), usual);
    let jitter = Config::default().election_jitter;
    assert_eq!(campaigns_after(0, 1, Connectivity::Quorum), usual + jitter, "and no longer");
    assert_eq!(campaigns_after(0, 1, Connectivity::Partial), usual, "who cannot lead is no reason");
}

/// How long, in heartbeats, until the leader makes way, and for whom; `tell` says what peers tell.
fn makes_way(bed: &mut Bed, tell: impl Fn(u16, &mut Heartbeat)) -> Option<(u32, ReplicaId)> {
    for step in 1..=400 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], &tell);
        if let Some(heir) = bed.replica.transferring() {
            return Some((step, heir));
        }
    }
    None
}

fn priorities(of_two: u8, of_three: u8) -> impl Fn(u16, &mut Heartbeat) {
    move |peer, heartbeat| {
        well(peer, heartbeat);
        heartbeat.priority = Priority::new(if peer == 2 { of_two } else { of_three });
    }
}

/// **E11** A leader hands over by itself to a voter of higher priority that E8 allows, once its reign
/// is four election timeouts old. It waits twice as long, up to 64 times, if it got the lead back soon
/// after the last time.
#[test]
fn e11_the_preferred_voter_leads_and_cannot_flap() {
    let mut bed = with_priority(1, 1);
    let own = bed.lead(&[2]);
    let four = 4 * 5;
    assert_eq!(makes_way(&mut bed, priorities(5, 7)), Some((four, id(3))), "the most preferred");
    let said = (Recipients::One(id(3)), Transfer { ballot: own, committed: slot(0), released: 0 });
    assert!(transfers(&mut bed).contains(&said));
    // It does not take over; the next attempt is twice as far away, and so is each after it.
    let mut last = 0;
    for doubled in [2, 4, 8] {
        let (step, heir) = makes_way_again(&mut bed, priorities(5, 7)).unwrap();
        assert_eq!(heir, id(3));
        assert!(step >= doubled * four - 5 && step > last, "{step} heartbeats");
        last = step;
    }

    let quiet = |own: u8, tell: &dyn Fn(u16, &mut Heartbeat)| {
        let mut bed = with_priority(1, own);
        bed.lead(&[2]);
        makes_way(&mut bed, tell)
    };
    assert_eq!(quiet(7, &priorities(5, 7)), None, "nobody is preferred");
    assert_eq!(
        quiet(1, &|peer, heartbeat| {
            priorities(5, 7)(peer, heartbeat);
            heartbeat.connectivity = Connectivity::Partial;
        }),
        None,
        "nobody could lead"
    );
}

/// The same after the one under way was given up.
fn makes_way_again(bed: &mut Bed, tell: impl Fn(u16, &mut Heartbeat)) -> Option<(u32, ReplicaId)> {
    let mut waited = 0;
    while bed.replica.transferring().is_some() {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], &tell);
        waited += 1;
    }
    makes_way(bed, tell).map(|(step, heir)| (waited + step, heir))
}

/// A replica that gets the lead back soon keeps it longer than the last time; after a long time it has
/// forgotten.
#[test]
fn e11_who_gets_the_lead_back_soon_keeps_it_longer() {
    let mut bed = with_priority(1, 1);
    let own = bed.lead(&[2]);
    let four = 4 * 5;
    assert_eq!(makes_way(&mut bed, priorities(5, 0)), Some((four, id(2))));
    let lose_and_regain = |bed: &mut Bed, own: Ballot, away: u32| {
        let above = ballot(own.round() + 1, 2);
        bed.receive(id(2), Prepare { ballot: above, from: slot(1) });
        bed.sync();
        for _ in 0..away {
            bed.pass(HEARTBEAT);
            bed.hear(&[2, 3], |peer, heartbeat| {
                well(peer, heartbeat);
                heartbeat.leader = (peer == 2).then_some(above);
            });
        }
        bed.lead(&[3])
    };
    let own = lose_and_regain(&mut bed, own, 5);
    assert_eq!(makes_way(&mut bed, priorities(5, 0)), Some((2 * four, id(2))), "twice as long");
    let own = lose_and_regain(&mut bed, own, 5);
    assert_eq!(makes_way(&mut bed, priorities(5, 0)), Some((4 * four, id(2))));
    lose_and_regain(&mut bed, own, 20 * four);
    assert_eq!(makes_way(&mut bed, priorities(5, 0)), Some((four, id(2))), "that is long ago");
}

/// A Transfer is a watermark under the rule of Commit, and no more than that, for those who are not
/// asked to lead by the one whom they follow.
#[test]
fn a_transfer_that_is_ignored_is_still_a_watermark() {
    let (mut bed, led) = follower();
    let later = ballot(led.round() + 1, 1);
    bed.receive(id(1), accept(later, 1, &["a"], 0));
    bed.sync();
    bed.receive(id(1), Commit { ballot: led, committed: slot(0) });
    bed.receive(id(1), Transfer { ballot: later, committed: slot(1), released: 0 });
    assert_eq!((bed.role(), bed.committed()), (Role::Follower, slot(1)));
}
