//! A register that three files keep, changed by compare-and-set: consensus without a log and without
//! a leader, from the core for one value. One of the three is always allowed to be away.
//!
//! Each change is a ballot of its own, so two proposers that work at once only cost each other
//! retries. Here they take turns, and messages are calls: what matters is what is on which disk when.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;
use std::{env, error::Error, fs, io, io::Write as _};

use paxos::core::single::{Acceptor, Answer, Register, Remembered};
use paxos::{Ballot, Membership, ReplicaId};

type Failure = Box<dyn Error>;

/// A server: an acceptor whose state is a line in a file.
struct Server {
    id: ReplicaId,
    path: PathBuf,
    away: bool,
}

impl Server {
    /// As its disk remembers it: this server crashes after every message.
    fn wake(&self) -> Result<Acceptor<u64>, Failure> {
        if !self.path.exists() {
            return Ok(Acceptor::new(self.id));
        }
        let text = fs::read_to_string(&self.path)?;
        let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let ballot = |at: usize| -> Result<Ballot, Failure> {
            Ok(Ballot::new(numbers[at], ReplicaId::new(u16::try_from(numbers[at + 1])?)))
        };
        let accepted = if numbers.len() > 2 { Some((ballot(2)?, numbers[4])) } else { None };
        Ok(Acceptor::recover(self.id, Remembered { promised: Some(ballot(0)?), accepted }))
    }

    /// On stable storage when this returns: a new file, synced, in place of the old one.
    fn keep(&self, state: &Remembered<u64>) -> io::Result<()> {
        let words = |ballot: Ballot| format!("{} {} ", ballot.round(), ballot.leader().number());
        let promised = state.promised.map(words).unwrap_or_default();
        let vote = |(ballot, value)| format!("{}{value}", words(ballot));
        let text = promised + &state.accepted.map(vote).unwrap_or_default();
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    }
}

/// One change, in a ballot of its own. Nothing comes back where no quorum answered: the change may
/// be found by a later one, or never.
fn change(
    proposer: &mut Register<u64>,
    servers: &[Server],
    change: impl Fn(u64) -> u64,
) -> Result<Option<u64>, Failure> {
    let (write, gated) = proposer.prepare();
    // The proposers of this program live as long as it does, and need no disk for their ballots.
    let Ok(prepare) = gated.open(&write.into_durable()) else { return Ok(None) };
    let (mut accept, mut settled) = (None, None);
    for server in servers.iter().filter(|server| !server.away) {
        match server.wake()?.prepare(prepare) {
            Answer::Written(write, gated) => {
                server.keep(write.state())?;
                if let Ok(promise) = gated.open(&write.into_durable()) {
                    let found = |value: Option<u64>| change(value.unwrap_or(0));
                    accept = accept.or(proposer.on_promise(server.id, promise, found));
                }
            }
            Answer::Refused(reject) => proposer.on_reject(reject),
        }
    }
    let Some(accept) = accept else { return Ok(None) };
    for server in servers.iter().filter(|server| !server.away) {
        match server.wake()?.accept(accept) {
            Answer::Written(write, gated) => {
                server.keep(write.state())?;
                if let Ok(accepted) = gated.open(&write.into_durable()) {
                    settled = settled.or(proposer.on_accepted(server.id, accepted));
                }
            }
            Answer::Refused(reject) => proposer.on_reject(reject),
        }
    }
    Ok(settled)
}

fn main() -> Result<(), Failure> {
    let folder = env::temp_dir().join(format!("paxos-register-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let ids = [1, 2, 3].map(ReplicaId::new);
    let server = |id: ReplicaId| Server { id, path: folder.join(id.to_string()), away: false };
    let mut servers = ids.map(server);
    let membership = Membership::voters_only(ids)?;
    let mut proposers = [ids[0], ids[1]].map(|id| Register::recover(id, membership.clone(), None));

    let (mut settled, mut tries) = (0, 0);
    for round in 0..10 {
        // A different server is away each time, and what it missed it never learns; nor need it.
        for (place, server) in servers.iter_mut().enumerate() {
            server.away = place == round % 3;
        }
        let proposer = &mut proposers[round % 2];
        settled = loop {
            tries += 1;
            if let Some(value) = change(proposer, &servers, |value| value + 1)? {
                break value;
            }
        };
    }
    println!("after 10 increments: {settled}, in {tries} ballots");

    let expected = settled;
    for (proposer, new) in proposers.iter_mut().zip([100, 200]) {
        let set = |value| if value == expected { new } else { value };
        let value = loop {
            if let Some(value) = change(proposer, &servers, set)? {
                break value;
            }
        };
        let word = if value == new { "done" } else { "refused" };
        println!("if it is {expected}, make it {new}: {word}, it is {value}");
    }

    servers[0].away = true;
    servers[1].away = true;
    let alone = change(&mut proposers[0], &servers, |value| value)?;
    println!("with one server of three, a read says {alone:?}");
    fs::remove_dir_all(&folder)?;
    Ok(())
}
