//! Peers that do not fit: both sides say what is wrong.

use std::time::Duration;

use paxos_core::ids::ClusterId;
use paxos_core::membership::Member;
use paxos_core::port::{Transport as _, TransportEvent};
use paxos_transport_quic::{Identity, QuicOptions};

use crate::support::{self, Host, Seat, id, life, membership};

async fn no_up(host: &mut Host) {
    let events = host.all_within(Duration::from_millis(100)).await;
    let up = events
        .iter()
        .find(|event| matches!(event, TransportEvent::Up { .. }));
    assert!(up.is_none(), "{up:?}");
}

/// t01: In TLS 1.3 the dialling side's connect succeeded although its key was refused, so it
/// reported a link and hammered on. Source: research, transport and storage, part 4, 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_an_unpinned_key_gets_no_link_and_both_sides_say_why() {
    let mut seats = [Seat::new(1), Seat::new(2)];
    let members = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    // Replica 2 starts with another key than the one that replica 1 knows.
    let stranger = Identity::generate().unwrap();
    let mut own = seats[1].member.clone();
    own.keys = vec![stranger.pin()];
    // Replica 1 has no address in replica 1's own view, so that the two directions are apart.
    let mut unreachable = seats[1].member.clone();
    unreachable.addresses.clear();
    let view_one = membership(vec![seats[0].member.clone(), unreachable]);
    let view_two = membership(vec![members.voters()[0].clone(), own]);
    seats[1].identity = Some(stranger);
    let mut one = Host::start(seats[0].options(&view_one), life(1));
    let mut two = Host::start(seats[1].options(&view_two), life(1));
    let (peer, reason) = two.refused("not pinned").await;
    assert_eq!(peer, Some(id(1)));
    assert!(
        reason.starts_with("wrong key: refused by the peer"),
        "{reason}"
    );
    let (peer, reason) = one.refused("not pinned").await;
    assert_eq!(peer, None, "nobody knows whose key it is");
    assert!(reason.starts_with("wrong key: its key "), "{reason}");
    assert!(!reason.contains("OtherError"), "{reason}");
    no_up(&mut one).await;
    no_up(&mut two).await;
    assert!(one.transport.counters().handshakes_refused > 0);
    assert_eq!(one.transport.counters().links_up, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialled_peer_with_another_key_is_refused_on_both_sides() {
    let mut seats = [Seat::new(1), Seat::new(2)];
    let stranger = Identity::generate().unwrap();
    let mut own = seats[1].member.clone();
    own.keys = vec![stranger.pin()];
    let view_one = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    let mut silent = seats[0].member.clone();
    silent.addresses.clear();
    let view_two = membership(vec![silent, own]);
    seats[1].identity = Some(stranger);
    let mut one = Host::start(seats[0].options(&view_one), life(1));
    let mut two = Host::start(seats[1].options(&view_two), life(1));
    let (peer, reason) = one.refused("not pinned").await;
    assert_eq!(peer, Some(id(2)));
    assert!(reason.starts_with("wrong key: "), "{reason}");
    let (_, reason) = two.refused("not pinned").await;
    assert!(
        reason.starts_with("wrong key: refused by the peer"),
        "{reason}"
    );
    no_up(&mut one).await;
    no_up(&mut two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_lead_to_another_replica_are_noticed() {
    let mut seats = [Seat::new(1), Seat::new(2), Seat::new(3)];
    // Replica 1 believes that replica 3 lives where replica 2 does.
    let swapped = Member {
        addresses: seats[1].member.addresses.clone(),
        ..seats[2].member.clone()
    };
    let view = membership(vec![
        seats[0].member.clone(),
        seats[1].member.clone(),
        swapped,
    ]);
    let members = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    let mut one = Host::start(seats[0].options(&view), life(1));
    let _two = Host::start(seats[1].options(&members), life(1));
    let (peer, reason) = one.refused("not of replica 3").await;
    assert_eq!(peer, Some(id(3)));
    assert!(reason.contains("its key is that of replica 2"), "{reason}");
    one.up(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_do_not_mix_and_both_sides_say_so() {
    let (mut seats, members) = support::seats(2);
    let mut one = Host::start(seats[0].options(&members), life(1));
    let mut format = support::format(id(2), &members);
    format.cluster = ClusterId::new(0xbad);
    let options = QuicOptions::new(&format, seats[1].identity.take().unwrap());
    let mut two = Host::start(options.socket(seats[1].socket.take().unwrap()), life(1));
    for (host, peer) in [(&mut one, 2), (&mut two, 1)] {
        let (from, reason) = host.refused("wrong cluster").await;
        assert_eq!(from, Some(id(peer)));
        assert!(
            reason.contains(&ClusterId::new(0xbad).to_string()),
            "{reason}"
        );
        assert!(reason.contains(&support::CLUSTER.to_string()), "{reason}");
        no_up(host).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_refusal_is_counted_each_time_and_told_once() {
    let (mut seats, members) = support::seats(2);
    let mut one = Host::start(seats[0].options(&members), life(1));
    let mut format = support::format(id(2), &members);
    format.cluster = ClusterId::new(0xbad);
    let options = QuicOptions::new(&format, seats[1].identity.take().unwrap());
    let two = Host::start(options.socket(seats[1].socket.take().unwrap()), life(1));
    support::eventually("several refusals", || {
        one.transport.counters().handshakes_refused >= 6
            && two.transport.counters().handshakes_refused >= 6
    })
    .await;
    let events = one.all_within(Duration::from_millis(20)).await;
    // Refused by this side as the one that was dialled and as the one that dialled, at most.
    assert!((1..=2).contains(&events.len()), "{events:?}");
}
