//! Group commit of the write-ahead log alone: one call of `persist` for all that is outstanding.
//!
//! Owns: nothing but a scratch directory under the target directory, on the disk under test.
//! Every append is a batch of one command in a record of its own, encoded before the clock starts,
//! as it is in a replica, which sends the same bytes to its peers. The log is trimmed as it grows.
//! The sync time of the machine stands beside each group of figures: without it they mean nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a measurement, not a library"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paxos_core::ballot::Ballot;
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::ids::{
    ClientId, ClusterId, Epoch, GroupId, LogClock, ReplicaId, RequestNumber, Slot,
};
use paxos_core::membership::Membership;
use paxos_core::message::Origin;
use paxos_core::port::{Format, Storage};
use paxos_core::sim::Batches;
use paxos_core::value::{Batch, Command, Value};
use paxos_storage::{Wal, WalOptions};

/// The log is trimmed to this many slots, so that freed segments are used again.
const SLOTS_KEPT: u64 = 65_536;

/// A record's header, and what a batch of one command adds to its payload.
const RECORD_OVERHEAD: usize = 108;

struct Journal {
    wal: Wal,
    batches: Batches,
    value: Value,
    slot: u64,
    trimmed: u64,
}

impl Journal {
    fn open(dir: &Path, payload: usize) -> Self {
        let replica = ReplicaId::new(1);
        let format = Format {
            cluster: ClusterId::new(1),
            group: GroupId::new(0),
            replica,
            membership: Membership::voters_only([replica]).unwrap(),
        };
        let mut wal = Wal::open_or_format(dir, &format, WalOptions::default()).unwrap();
        let incarnation = wal.recover(1).unwrap()[0].incarnation;
        let payload = Bytes::from(vec![0x5a; payload]);
        let command = Command::apply(ClientId::new(1), RequestNumber::default(), payload);
        let batch = Batch::new(LogClock::default(), vec![command]);
        batch.encoded();
        Self {
            wal,
            batches: Batches::new(Origin {
                cluster: format.cluster,
                group: format.group,
                epoch: Epoch::FIRST,
                membership: paxos_core::agreement::MembershipDigest::default(),
                replica,
                incarnation,
            }),
            value: Value::Batch(batch),
            slot: 0,
            trimmed: 0,
        }
    }

    /// As many appends as are outstanding, and what keeps the log short.
    fn call(&mut self, outstanding: u64) -> Vec<WriteBatch> {
        let mut call = Vec::with_capacity(outstanding as usize + 1);
        for _ in 0..outstanding {
            self.slot += 1;
            call.push(self.batches.batch(vec![Write::Accepted {
                slot: Slot::new(self.slot),
                ballot: Ballot::new(1, ReplicaId::new(1)),
                value: self.value.clone(),
            }]));
        }
        let trim = self.slot.saturating_sub(SLOTS_KEPT);
        if trim > self.trimmed + SLOTS_KEPT {
            self.trimmed = trim;
            let through = Slot::new(trim);
            let writes = vec![Write::Committed(through), Write::Trimmed(through)];
            call.push(self.batches.batch(writes));
        }
        call
    }

    fn time(&mut self, outstanding: u64, calls: u64) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..calls {
            let call = self.call(outstanding);
            let start = Instant::now();
            let proofs = self.wal.persist(call).unwrap();
            spent += start.elapsed();
            drop(proofs);
        }
        spent
    }
}

/// Prints how long the machine takes to write 4 KiB into a file with blocks and to sync it.
fn print_sync_time(dir: &Path) {
    let file = File::create(dir.join("sync-time")).unwrap();
    let block = [1; 4096];
    for at in 0..256 {
        file.write_all_at(&block, at * 4096).unwrap();
    }
    file.sync_all().unwrap();
    let mut times: Vec<_> = (0..256)
        .map(|at| {
            let start = Instant::now();
            file.write_all_at(&block, at * 4096).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    eprintln!(
        "fdatasync of 4 KiB on this machine: p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}

/// Prints how fast the machine writes and syncs what a call of 1,024 appends brings, into a file
/// with blocks: the bound of the log.
fn print_raw_rate(dir: &Path, payload: usize) {
    const CALLS: u32 = 48;
    let call = vec![1; 1024 * (payload + RECORD_OVERHEAD)];
    let file = File::create(dir.join("raw")).unwrap();
    let write = |at: u32| file.write_all_at(&call, u64::from(at) * call.len() as u64).unwrap();
    (0..CALLS).for_each(write);
    file.sync_all().unwrap();
    let start = Instant::now();
    for at in 0..CALLS {
        write(at);
        file.sync_data().unwrap();
    }
    let rate = f64::from(CALLS * 1024) / start.elapsed().as_secs_f64();
    eprintln!("plain write and fdatasync of 1024 appends of {payload} B: {rate:.0} appends/s");
}

fn group_commit(c: &mut Criterion) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for payload in [128, 1024] {
        print_sync_time(scratch.path());
        let dir = scratch.path().join(format!("log-{payload}"));
        let mut journal = Journal::open(&dir, payload);
        let mut group = c.benchmark_group(format!("wal/{payload}B"));
        group.measurement_time(Duration::from_secs(3));
        group.sample_size(20);
        for outstanding in [1, 64, 1024] {
            group.throughput(Throughput::Elements(outstanding));
            let id = BenchmarkId::from_parameter(outstanding);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|calls| journal.time(outstanding, calls));
            });
        }
        group.finish();
        print_raw_rate(scratch.path(), payload);
        print_sync_time(scratch.path());
    }
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
