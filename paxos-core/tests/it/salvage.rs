//! What a survivor has, in random runs: rule B6 against all that was ever chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::durable::{Durable, Write, WriteBatch};
use paxos_core::founding::{Grounds, known_prefix, salvage};
use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::membership::Membership;
use paxos_core::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, RecoveredVote, Room, SnapshotStore, Storage,
    StorageError,
};
use paxos_core::quorum::VoterSet;
use paxos_core::sim::{CrashStorage, DiskFault, Harm, Limits, Rng, SimDisk, run_seed_on};
use paxos_core::value::Value;

/// What was ever durable, of all replicas, and what each has on its disk.
#[derive(Debug, Default)]
struct Ledger {
    /// Who accepted what in a slot at a ballot, and was told that it is durable.
    votes: BTreeMap<(Slot, Ballot), (Value, VoterSet)>,
    disks: BTreeMap<ReplicaId, Recovered>,
    /// Whose disks were wiped, set back or damaged: they may lack what they had (§11), and say so.
    forgetful: BTreeSet<ReplicaId>,
    /// How many slots above a survivor's prefix were looked at; how many of those were chosen.
    looked_at: u64,
    chosen: u64,
}

impl Ledger {
    fn write(&mut self, id: ReplicaId, write: &Write) {
        let disk = self.disks.get_mut(&id).unwrap();
        match write {
            Write::Promised(ballot) => disk.promised = disk.promised.max(Some(*ballot)),
            Write::Accepted { slot, ballot, value } => {
                let (slot, ballot, value) = (*slot, *ballot, value.clone());
                let place = disk.format.membership.voter_index(id);
                let vote = self.votes.entry((slot, ballot));
                let (_, voters) = vote.or_insert((value.clone(), VoterSet::default()));
                place.map(|place| voters.insert(place));
                disk.votes.retain(|vote| vote.slot != slot);
                disk.votes.push(RecoveredVote { slot, ballot, value });
            }
            Write::Chosen { slot, value } => {
                disk.chosen.retain(|(known, _)| known != slot);
                disk.chosen.push((*slot, value.clone()));
            }
            Write::Committed(slot) | Write::Trimmed(slot) => {
                disk.committed = disk.committed.max(*slot);
            }
            Write::Refused { .. } | Write::Peer { .. } | Write::Governs { .. } => {}
        }
        let committed = disk.committed;
        disk.votes.retain(|vote| vote.slot > committed);
        disk.chosen.retain(|(slot, _)| *slot > committed);
    }

    /// All others are lost: whatever was chosen with this one's vote, it gives back.
    fn survive(&mut self, id: ReplicaId) {
        let disk = &self.disks[&id];
        let membership: &Membership = &disk.format.membership;
        let Some(place) = membership.voter_index(id) else { return };
        if self.forgetful.contains(&id) {
            return;
        }
        let prefix = known_prefix(disk);
        let kept: BTreeMap<_, _> =
            salvage(disk).into_iter().map(|kept| (kept.slot, kept)).collect();
        for (expected, slot) in kept.keys().enumerate() {
            assert_eq!(*slot, prefix.plus(expected as u64 + 1), "every slot, in order");
        }
        self.looked_at += kept.len() as u64;
        for ((slot, ballot), (value, voters)) in
            self.votes.range((prefix.next(), Ballot::new(0, ReplicaId::new(0)))..)
        {
            let mine = voters.iter().any(|voter| voter == place);
            if !mine || !membership.quorums().is_accept_quorum(*voters) {
                continue;
            }
            self.chosen += 1;
            let kept = kept.get(slot).unwrap_or_else(|| panic!("{slot} of {ballot} is lost"));
            assert_eq!(kept.value, *value, "{slot} was chosen at {ballot}: {:?}", kept.grounds);
            assert_ne!(kept.grounds, Grounds::Unknown);
        }
    }
}

/// A simulated disk that is watched.
#[derive(Debug)]
struct Watched {
    id: ReplicaId,
    disk: Box<dyn CrashStorage>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Watched {
    fn new(format: Format, disk: Box<dyn CrashStorage>, ledger: &Arc<Mutex<Ledger>>) -> Self {
        let id = format.replica;
        let life = paxos_core::ids::Incarnation::first(0);
        let blank = Recovered::formatted(format, life);
        ledger.lock().unwrap().disks.insert(id, blank);
        Self { id, disk, ledger: Arc::clone(ledger) }
    }
}

impl Storage for Watched {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        let recovered = self.disk.recover(nonce)?;
        // Facts that were not proved may have survived.
        if let [group] = recovered.as_slice() {
            self.ledger.lock().unwrap().disks.insert(self.id, group.clone());
        }
        Ok(recovered)
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        let writes: Vec<_> = batches.iter().flat_map(WriteBatch::writes).cloned().collect();
        let proofs = self.disk.persist(batches)?;
        let mut ledger = self.ledger.lock().unwrap();
        for write in &writes {
            ledger.write(self.id, write);
        }
        Ok(proofs)
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.disk.load(range)
    }

    fn room(&self) -> Room {
        self.disk.room()
    }

    fn blocking(&self) -> Blocking {
        self.disk.blocking()
    }

    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        self.disk.snapshots()
    }
}

impl CrashStorage for Watched {
    fn crash(&mut self, unproved: Vec<WriteBatch>, rng: &mut Rng) {
        self.ledger.lock().unwrap().survive(self.id);
        self.disk.crash(unproved, rng);
    }

    fn blank(&self, format: Format) -> Box<dyn CrashStorage> {
        self.ledger.lock().unwrap().forgetful.insert(self.id);
        let disk = self.disk.blank(format.clone());
        Box::new(Self::new(format, disk, &self.ledger))
    }

    fn inject(&mut self, fault: DiskFault, rng: &mut Rng) -> bool {
        if fault.harm() != Harm::Passing {
            self.ledger.lock().unwrap().forgetful.insert(self.id);
        }
        self.disk.inject(fault, rng)
    }

    fn calm(&mut self) {
        self.disk.calm();
    }

    fn delay(&self) -> Duration {
        self.disk.delay()
    }

    fn audit(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.disk.audit(range)
    }
}

/// Each crash of a replica is taken for a disaster in which it is the survivor.
#[test]
fn b6_what_was_chosen_with_the_vote_of_a_survivor_is_never_lost() {
    let (mut looked_at, mut chosen) = (0, 0);
    for seed in 0..150 {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let outcome = run_seed_on(seed, &Limits::default(), |format| {
            let disk = Box::new(SimDisk::new(format.clone()));
            Box::new(Watched::new(format, disk, &ledger))
        });
        assert_eq!(outcome.violation, None, "seed {seed}");
        let ledger = ledger.lock().unwrap();
        looked_at += ledger.looked_at;
        chosen += ledger.chosen;
    }
    assert!(looked_at > 1000 && chosen > 500, "{looked_at} slots, {chosen} chosen");
}
