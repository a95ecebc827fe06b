//! What is done when a majority of voters is lost for good: another cluster, of one replica, begins with what a
//! survivor has.
//!
//! Owns: [`survey`], which says what would be kept and changes nothing; [`Survey::recover`]; the steps in
//! the file system, and [`Recovery::resume`], which ends what was cut short. Decides nothing of values: that is
//! `paxos_core::founding`.
//! Invariants: (1) at every moment the directory is the old one, or there is none of its name, or it is the new
//! one, whole; (2) the old one is never changed, and is kept under another name; (3) whoever runs it again
//! after it was cut short gets to its end.
//!
//! The steps: DIR.recovering is made and is durable; DIR becomes DIR.of-cluster-ID; DIR.recovering becomes DIR.
//! Source: protocol.md §17, rule B6; hashicorp/raft's `RecoverCluster` and etcd's `--force-new-cluster`, which
//! go on under the old name.

use core::fmt;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use paxos_core::ballot::Ballot;
use paxos_core::founding::{Grounds, known_prefix, salvage};
use paxos_core::ids::{ClusterId, Epoch, Incarnation, ReplicaId, Slot};
use paxos_core::membership::{Member, Membership};
use paxos_core::port::{Format, Recovered, StorageError};
use paxos_core::quorum::QuorumRule;
use paxos_storage::inspect::Inspection;
use paxos_storage::{Wal, WalOptions};

use super::found::{Founded, found};
use super::stopped::{Extent, pour};
use super::{BackupError, failed};
use crate::snapshot::SnapshotInfo;

/// Why nothing was recovered, or not to the end.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecoveryError {
    /// An earlier one was cut short before its last step: [`Recovery::resume`] ends it.
    Unfinished {
        /// The directory, which does not exist at the moment.
        dir: PathBuf,
    },
    /// The path has no name that others could be made of.
    NoName(PathBuf),
    /// The directory cannot be read, or another one cannot be made.
    Backup(BackupError),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished { dir } => write!(
                f,
                "a recovery of {} was cut short before its last step, and is to be run to its end",
                dir.display()
            ),
            Self::NoName(path) => write!(f, "{} is no name of a directory", path.display()),
            Self::Backup(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecoveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Backup(error) => Some(error),
            Self::Unfinished { .. } | Self::NoName(_) => None,
        }
    }
}

impl From<BackupError> for RecoveryError {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl From<StorageError> for RecoveryError {
    fn from(error: StorageError) -> Self {
        Self::Backup(error.into())
    }
}

/// The names that are used.
#[derive(Clone, Debug)]
struct Names {
    dir: PathBuf,
    recovering: PathBuf,
    parent: PathBuf,
}

impl Names {
    fn of(dir: &Path) -> Result<Self, RecoveryError> {
        // A directory that is a link is renamed where it is, and `.` has no name of its own.
        let linked = fs::read_link(dir).map(|to| dir.parent().unwrap_or(Path::new("")).join(to));
        let dir = linked.as_deref().unwrap_or(dir);
        let real = fs::canonicalize(dir).or_else(|_| std::path::absolute(dir));
        let dir = real.map_err(failed("cannot find", dir))?;
        let (Some(name), Some(parent)) = (dir.file_name(), dir.parent()) else {
            return Err(RecoveryError::NoName(dir));
        };
        let mut recovering = OsString::from(name);
        recovering.push(".recovering");
        let recovering = parent.join(recovering);
        Ok(Self { recovering, parent: parent.to_owned(), dir: dir.clone() })
    }

    /// What the directory is called once another one has its name.
    fn aside(&self, old: ClusterId) -> PathBuf {
        let mut name = self.dir.clone().into_os_string();
        name.push(format!(".of-cluster-{old}"));
        name.into()
    }

    /// Whether only the last step is missing.
    fn is_unfinished(&self) -> bool {
        !self.dir.exists() && self.recovering.exists()
    }

    fn sync(&self) -> Result<(), BackupError> {
        let synced = File::open(&self.parent).and_then(|parent| parent.sync_all());
        synced.map_err(failed("cannot sync", &self.parent))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let what = format!("cannot rename {} to", from.display());
        fs::rename(from, to).map_err(failed(&what, to))?;
        self.sync()
    }
}

/// What a survivor has. While this lives its directory is locked, and nothing in it is changed.
#[derive(Debug)]
pub struct Survey {
    names: Names,
    inspection: Inspection,
    recovered: Recovered,
    found: SurveyFacts,
}

/// What is to be known before it is decided.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SurveyFacts {
    /// The cluster that has lost its majority.
    pub cluster: ClusterId,
    /// The survivor.
    pub replica: ReplicaId,
    /// Its last life.
    pub life: Option<Incarnation>,
    /// Who votes in the newest membership that it knows.
    pub voters: Vec<ReplicaId>,
    /// Its newest snapshot.
    pub snapshot: Option<SnapshotInfo>,
    /// Every slot up to this one is known to be chosen, and is kept.
    pub committed: Slot,
    /// The last slot that it knows anything of.
    pub last: Slot,
    /// Of the slots between: how many are known to be chosen.
    pub chosen: u64,
    /// How many were accepted here, and perhaps not chosen. They are kept.
    pub accepted: u64,
    /// The highest ballot of those.
    pub accepted_at: Option<Ballot>,
    /// Of how many nothing is known. They become no-ops.
    pub unknown: u64,
    /// The highest ballot that it promised.
    pub promised: Option<Ballot>,
    /// A peer refused the directory, as it remembers this later life: it may lack what that one had.
    pub refused: Option<(ReplicaId, Incarnation)>,
}

/// Looks at the directory of a replica that survived, and changes nothing. Waits for the disk.
///
/// Fails with [`RecoveryError::Unfinished`] where [`Recovery::resume`] is to be called.
pub fn survey(dir: impl AsRef<Path>) -> Result<Survey, RecoveryError> {
    let names = Names::of(dir.as_ref())?;
    if names.is_unfinished() {
        return Err(RecoveryError::Unfinished { dir: names.dir });
    }
    let mut inspection = Inspection::open(&names.dir)?;
    let recovered = inspection.recovered()?;
    let salvaged = salvage(&recovered);
    let committed = known_prefix(&recovered);
    let ballots = salvaged.iter().filter_map(|kept| match kept.grounds {
        Grounds::Accepted(ballot) => Some(ballot),
        Grounds::Chosen | Grounds::Unknown => None,
    });
    let (accepted, accepted_at) = (ballots.clone().count() as u64, ballots.max());
    let of = |grounds| salvaged.iter().filter(|kept| kept.grounds == grounds).count() as u64;
    let found = SurveyFacts {
        cluster: recovered.format.cluster,
        replica: recovered.format.replica,
        life: inspection.life(),
        voters: newest(&recovered).voters().iter().map(|member| member.id).collect(),
        snapshot: recovered.snapshot.as_ref().map(SnapshotInfo::of),
        committed,
        last: salvaged.last().map_or(committed, |kept| kept.slot),
        chosen: of(Grounds::Chosen),
        accepted,
        accepted_at,
        unknown: of(Grounds::Unknown),
        promised: recovered.promised,
        refused: inspection.refused(),
    };
    Ok(Survey { names, inspection, recovered, found })
}

/// The memberships that are known, the newest first.
fn known(recovered: &Recovered) -> Vec<&Membership> {
    let snapshot = recovered.snapshot.iter().flat_map(|meta| &meta.governs);
    let known = snapshot.chain(&recovered.governs).map(|governs| &governs.membership);
    let mut known: Vec<_> = known.chain([&recovered.format.membership]).collect();
    known.sort_by_key(|membership| core::cmp::Reverse(membership.epoch()));
    known
}

fn newest(recovered: &Recovered) -> &Membership {
    known(recovered).first().expect("it was formatted with one")
}

impl Survey {
    /// What was found.
    pub fn facts(&self) -> &SurveyFacts {
        &self.found
    }

    /// What was found, and what follows from it, in lines for the one who decides.
    pub fn words(&self) -> String {
        let SurveyFacts { cluster, replica, committed, last, accepted, unknown, .. } = &self.found;
        let voters: Vec<_> = self.found.voters.iter().map(|id| id.number().to_string()).collect();
        let voters = voters.join(", ");
        let kept = match (&self.found.snapshot, committed.number()) {
            (_, 0) => "nothing is known to be committed".to_owned(),
            (None, _) => format!("every slot up to {committed}, known to be committed"),
            (Some(info), _) => format!(
                "every slot up to {committed}, known to be committed: a snapshot of {}, of {} bytes with \
                 digest {}, and the log after it",
                info.slot, info.bytes, info.digest
            ),
        };
        let mut lines = vec![
            format!("{replica} of cluster {cluster}, in which replicas {voters} vote"),
            format!("kept:      {kept}"),
        ];
        if last > committed {
            let chosen = self.found.chosen;
            lines.push(format!(
                "kept too:  {accepted} slots up to {last} that it accepted and {chosen} that it was told are \
                 chosen: what clients were told of is among them, and perhaps writes that were refused, or \
                 that lost their slot to another write"
            ));
        }
        if *unknown > 0 {
            lines
                .push(format!("filled:    {unknown} slots of which it knows nothing, with no-ops"));
        }
        lines.push(format!(
            "lost:      every write that the other replicas have and this one never accepted. How many \
             cannot be known here; their slots are above {committed}, those after {last} included"
        ));
        if let Some((by, remembered)) = self.found.refused {
            lines.push(format!(
                "beware:    {by} refused this directory and remembers life {remembered} of it: it was wiped \
                 or is an old copy, and may lack much more than that"
            ));
        }
        lines.push(
            "ended:     all sessions of clients; the names of the old cluster and of its lives"
                .to_owned(),
        );
        lines.push(format!(
            "the others: never start them again. None of them can mix with the new cluster; but a majority \
             of replicas {voters}, where it comes back, is the old cluster, and serves its clients"
        ));
        lines.join("\n")
    }

    /// Makes the directory the one of a new cluster, in which this replica alone votes, at the same addresses
    /// and with the same keys, and which begins with what the survivor has. The old directory is kept beside it,
    /// so there must be space for both. Waits for the disk.
    ///
    /// Run again after it failed or was cut short at whatever point it gets to its end, under yet another id.
    pub fn recover(mut self, options: WalOptions) -> Result<Recovery, RecoveryError> {
        let names = self.names.clone();
        let old = self.found.cluster;
        let kept = names.aside(old);
        if kept.exists() {
            return Err(BackupError::Exists { path: kept }.into());
        }
        if names.recovering.exists() {
            // It never had its name, so nobody counts on it.
            let removed = fs::remove_dir_all(&names.recovering);
            removed.map_err(failed("cannot remove", &names.recovering))?;
        }
        let membership = self.alone()?;
        let (group, replica) = (self.recovered.format.group, self.found.replica);
        let format = Format { cluster: fresh_cluster(), group, replica, membership };
        let mut wal = Wal::format(&names.recovering, &format, options)?;
        let (inspection, recovered) = (&mut self.inspection, &self.recovered);
        let founded =
            found(&mut wal, old, |sink| pour(inspection, recovered, Extent::Survivor, sink))?;
        drop(wal);
        names.sync()?;
        names.rename(&names.dir, &kept)?;
        names.rename(&names.recovering, &names.dir)?;
        Ok(Recovery {
            dir: names.dir,
            kept: Some(kept),
            cluster: format.cluster,
            founded: Some(founded),
        })
    }

    /// The membership of this replica and nobody else.
    fn alone(&self) -> Result<Membership, RecoveryError> {
        let (id, known) = (self.found.replica, known(&self.recovered));
        // One that was removed since has its address and its keys in an older one.
        let own = known.iter().flat_map(|known| known.members()).find(|member| member.id == id);
        let member = own.cloned().unwrap_or_else(|| Member::new(id));
        let newest = newest(&self.recovered);
        let rule = QuorumRule::Majority;
        let alone = Membership::new(Epoch::FIRST, vec![member], Vec::new(), rule, newest.window())
            .map_err(|error| StorageError::Mismatch { what: error.to_string() })?;
        Ok(match newest.lease() {
            Some(terms) => alone.with_lease(terms),
            None => alone,
        })
    }
}

/// A directory that begins anew.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Recovery {
    /// The directory.
    pub dir: PathBuf,
    /// Where the old one is kept, if that is known: of an earlier attempt that was ended it is not.
    pub kept: Option<PathBuf>,
    /// The new cluster.
    pub cluster: ClusterId,
    /// What it begins with, if that is known.
    pub founded: Option<Founded>,
}

impl Recovery {
    /// Ends a recovery of this directory that was cut short before its last step. None if there is no such.
    pub fn resume(dir: impl AsRef<Path>) -> Result<Option<Self>, RecoveryError> {
        let names = Names::of(dir.as_ref())?;
        if !names.is_unfinished() {
            return Ok(None);
        }
        let inspection = Inspection::open(&names.recovering)?;
        let cluster = inspection.format().cluster;
        names.rename(&names.recovering, &names.dir)?;
        drop(inspection);
        Ok(Some(Self { dir: names.dir, kept: None, cluster, founded: None }))
    }
}

/// An id that no cluster ever had.
fn fresh_cluster() -> ClusterId {
    // Each has keys of its own, drawn from the system.
    let half = |number: u64| u128::from(RandomState::new().hash_one(number));
    ClusterId::new(half(0) << 64 | half(1))
}
