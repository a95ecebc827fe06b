//! Links: one per peer, whoever dials; new lives, restarts, membership.

use std::time::{Duration, Instant};

use paxos_core::port::{Lane, Sent, Transport as _, TransportEvent};
use paxos_transport_quic::{Identity, Limits, QuicOptions};

use crate::support::{self, Host, PATIENCE, Seat, eventually, frame, id, life, membership};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_replicas_link_up_with_each_other() {
    let mut hosts = support::cluster(5, &Limits::default());
    for at in 0..5_u16 {
        for peer in 1..=5 {
            if peer != at + 1 {
                assert_eq!(hosts[usize::from(at)].up(peer).await, life(1));
            }
        }
    }
    assert!(hosts.iter().all(|host| host.handle.links().len() == 4));
}

/// t09: Both sides dialled at once, each closed the other's connection, and they never met (anemo's
/// and aranya's tie-breaks tell of it). Source: research, transport and storage, part 4, 9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_dialling_at_once_leaves_exactly_one_link() {
    for round in 0..30 {
        let mut hosts = support::cluster(2, &Limits::default());
        hosts[0].up(2).await;
        hosts[1].up(1).await;
        eventually("one connection on each side", || {
            hosts.iter().all(|host| host.handle.connections() == 1)
        })
        .await;
        let [one, other] = [&hosts[0], &hosts[1]].map(|host| host.handle.links());
        assert_eq!(one[0].dialled_by, other[0].dialled_by, "both sides agree");
        for host in &mut hosts {
            let events = host.all_within(Duration::from_millis(5)).await;
            assert!(events.is_empty(), "round {round}: {events:?}");
            assert_eq!(host.transport.counters().links_up, 1);
        }
    }
}

/// t10: A peer restarted under its id, and the old connection counted as alive until its idle
/// timeout. Source: research, transport and storage, part 4, 10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_a_new_life_replaces_the_old_link_at_once() {
    let (mut seats, members) = support::seats(2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let identity = Identity::load_or_generate(&path).unwrap();
    seats[0].member.keys = vec![identity.pin()];
    let members = membership(vec![seats[0].member.clone(), members.voters()[1].clone()]);
    let mut two = Host::start(seats[1].options(&members), life(1));
    seats[0].identity = Some(identity);
    let mut old = Host::start(seats[0].options(&members), life(1));
    assert_eq!(two.up(1).await, life(1));
    old.up(2).await;
    // The old life hangs: it is neither dropped nor does it say goodbye.
    let began = Instant::now();
    let format = support::format(id(1), &members);
    let options = QuicOptions::new(&format, Identity::load(&path).unwrap()).listen("127.0.0.1:0");
    let mut new = Host::start(options, life(2));
    assert!(two.down(1).await.contains("replaced"));
    assert_eq!(two.up(1).await, life(2));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    new.up(2).await;
    assert_eq!(new.send(2, frame(Lane::Log, &b"new life"[..])), Sent::Queued);
    assert_eq!(&two.frame().await[..], b"new life");
    // The old life is told that it is one, on both sides.
    assert!(old.refused("wrong incarnation").await.1.contains("earlier life"));
    assert!(two.refused("wrong incarnation").await.1.contains("earlier life"));
    assert_eq!(two.handle.links().len(), 1);
    assert_eq!(two.handle.links()[0].incarnation, life(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_on_its_port_is_linked_again_soon() {
    let (mut seats, members) = support::seats(2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let identity = Identity::load_or_generate(&path).unwrap();
    seats[0].member.keys = vec![identity.pin()];
    let members = membership(vec![seats[0].member.clone(), members.voters()[1].clone()]);
    seats[0].identity = Some(identity);
    let address = seats[0].member.addresses[0].clone();
    let format = support::format(id(1), &members);
    let mut two = Host::start(seats[1].options(&members), life(1));
    let mut one = Host::start(seats[0].options(&members), life(1));
    two.up(1).await;
    let mut fastest = Duration::MAX;
    for boot in 2..5 {
        one.up(2).await;
        drop(one);
        let reason = two.down(1).await;
        assert!(reason.contains("stops"), "{reason}");
        let transport = support::rebind(|| {
            QuicOptions::new(&format, Identity::load(&path).unwrap()).listen(address.clone())
        })
        .await;
        let began = Instant::now();
        one = Host::wrap(transport, life(boot));
        assert_eq!(two.up(1).await, life(boot));
        fastest = fastest.min(began.elapsed());
    }
    // A busy machine may be slow once; a dialler that waits for its turn is slow each time.
    assert!(fastest < Duration::from_secs(1), "linked after {fastest:?} at best");
}

/// t02: A key was removed from the configuration, and the connection that it had opened stayed.
/// Source: research, transport and storage, part 4, 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t02_a_removed_key_ends_its_link_and_stays_out() {
    let (seats, members) = support::seats(3);
    let mut hosts: Vec<_> =
        seats.into_iter().map(|mut seat| Host::start(seat.options(&members), life(1))).collect();
    for (at, peers) in [(0, [2, 3]), (1, [1, 3]), (2, [1, 2])] {
        for peer in peers {
            hosts[at].up(peer).await;
        }
    }
    let without = membership(members.voters()[..2].to_vec());
    hosts[0].handle.set_membership(&without).unwrap();
    for (host, peer) in [(0, 3), (2, 1)] {
        let reason = hosts[host].down(peer).await;
        assert!(reason.contains("key was removed"), "{host}: {reason}");
    }
    let (peer, reason) = hosts[2].refused("not pinned").await;
    assert_eq!(peer, Some(id(1)));
    assert!(reason.starts_with("wrong key: refused by the peer"), "{reason}");
    assert!(hosts[0].refused("not pinned").await.1.starts_with("wrong key"));
    assert_eq!(hosts[0].send(3, frame(Lane::Log, &b"gone"[..])), Sent::Down);
    // The others are untouched, and the member can come back.
    assert_eq!(hosts[0].handle.links().len(), 1);
    hosts[0].handle.set_membership(&members).unwrap();
    hosts[0].up(3).await;
    hosts[2].up(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_takes_over_while_both_are_pinned() {
    let (seats, members) = support::seats(2);
    let mut hosts: Vec<_> =
        seats.into_iter().map(|mut seat| Host::start(seat.options(&members), life(1))).collect();
    hosts[0].up(2).await;
    hosts[1].up(1).await;
    let next = Identity::generate().unwrap();
    let mut rotating = members.voters()[1].clone();
    rotating.keys.push(next.pin());
    let both = membership(vec![members.voters()[0].clone(), rotating.clone()]);
    hosts[0].handle.set_membership(&both).unwrap();
    let events = hosts[0].all_within(Duration::from_millis(50)).await;
    assert!(events.is_empty(), "the link with the old key stays: {events:?}");
    drop(hosts.pop());
    hosts[0].down(2).await;
    let options = QuicOptions::new(&support::format(id(2), &both), next).listen("127.0.0.1:0");
    let mut two = Host::start(options, life(2));
    assert_eq!(hosts[0].up(2).await, life(2));
    two.up(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dialling_side_is_enough() {
    let mut seats = [Seat::new(1), Seat::new(2)];
    // Nobody can reach replica 1, and the first address of replica 2 has no name.
    seats[0].member.addresses.clear();
    let name = "no-such-host.invalid:7101".to_owned();
    seats[1].member.addresses.insert(0, name);
    let members = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    let [mut one, mut two] = seats.map(|mut seat| Host::start(seat.options(&members), life(1)));
    one.up(2).await;
    two.up(1).await;
    assert_eq!(one.handle.links()[0].dialled_by, id(1));
    for (from, to, peer) in [(&mut one, &mut two, 2)] {
        assert_eq!(from.send(peer, frame(Lane::Bulk, &b"bulk"[..])), Sent::Queued);
        assert_eq!(&to.frame().await[..], b"bulk");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_bulk_connection_is_closed_and_dialled_again() {
    let limits = Limits { bulk_idle: Duration::from_millis(100), ..Limits::default() };
    let mut hosts = support::cluster(2, &limits);
    hosts[0].up(2).await;
    hosts[1].up(1).await;
    for _ in 0..3 {
        assert_eq!(hosts[0].send(2, frame(Lane::Bulk, &b"bulk"[..])), Sent::Queued);
        assert_eq!(&hosts[1].frame().await[..], b"bulk");
        eventually("the bulk connection", || hosts[1].handle.connections() == 2).await;
        eventually("its end", || hosts.iter().all(|host| host.handle.connections() == 1)).await;
    }
    let events = hosts[1].all_within(Duration::from_millis(5)).await;
    assert!(events.is_empty(), "the link stays: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_link_comes_after_its_end() {
    let mut hosts = support::cluster(2, &Limits::default());
    hosts[0].up(2).await;
    hosts[1].up(1).await;
    for _ in 0..2000 {
        hosts[0].send(2, frame(Lane::Log, vec![1; 500]));
    }
    eventually("some frames", || hosts[1].transport.counters().frames_received > 0).await;
    drop(hosts.remove(0));
    let mut frames = 0;
    loop {
        match hosts[0].next_within(PATIENCE).await {
            Some(TransportEvent::Frame { .. }) => frames += 1,
            Some(TransportEvent::Down { .. }) => break,
            event => panic!("frames, then the end, and not {event:?} after {frames} frames"),
        }
    }
    let after = hosts[0].all_within(Duration::from_millis(50)).await;
    assert!(after.is_empty(), "{after:?}");
}
