//! What a node answers.
//!
//! Owns: [`Desk`], which has what is to be known of one node, and carries out what is asked of it.
//! Knows no socket and no state machine. Source of the orders' semantics: [`crate::Node`].

use std::path::PathBuf;
use std::sync::Arc;

use paxos_core::ids::{ReplicaId, Slot, Time};
use tokio::sync::watch;

use crate::admin::change::ChangeRequest;
use crate::admin::prometheus;
use crate::admin::report::{
    ChangeReport, ExportReport, LeadershipReport, MembersReport, SnapshotReport, StatusReport,
    TransferReport, TrimReport,
};
use crate::admin::wire::{Answer, Fault, FaultCode, Request};
use crate::backup::{BackupError, live};
use crate::change::{Changed, reconfigure};
use crate::error::{MakeSnapshotError, ReconfigureError, TransferError, TrimLogError};
use crate::handover::transfer;
use crate::node::Place;
use crate::shared::{Leadership, Shared};
use crate::snapshot;

/// One node, to be asked.
#[derive(Debug)]
pub(crate) struct Desk {
    place: Place,
    shared: Arc<Shared>,
}

impl Desk {
    pub(crate) fn new(place: Place, shared: Arc<Shared>) -> Self {
        Self { place, shared }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.place.replica
    }

    /// Changes of leadership.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Resolves when the node has stopped, with what is to be said then. Cancel safe.
    pub(crate) async fn stopped(&self) -> Fault {
        let mut stopped = self.shared.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.as_ref().map(ToString::to_string));
        let reason = reason.unwrap_or_else(|| "the node is gone".to_owned());
        Fault { code: FaultCode::Stopped, reason }
    }

    pub(crate) fn report(&self, leadership: Leadership) -> Answer {
        Answer::Leadership(LeadershipReport::of(self.place.replica, leadership))
    }

    /// Answers a request; to [`Request::Watch`] what is known at the moment.
    ///
    /// Dropped before its end it withdraws nothing: a node that was told to make way goes on.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Members => {
                let (status, membership) = (self.shared.status(), self.shared.membership());
                let memberships = self.shared.memberships();
                let report = MembersReport::of(self.place, &status, &membership, &memberships);
                Answer::Members(Box::new(report))
            }
            Request::Metrics => Answer::Metrics(self.metrics()),
            Request::Watch => self.report(*self.shared.leadership.borrow()),
            Request::Transfer { to } => self.transfer(to).await,
            Request::Snapshot => self.snapshot().await,
            Request::Trim { through } => self.trim(through).await,
            Request::Export { file } => self.export(&file).await,
            Request::Change(change) => self.change(change).await,
        }
    }

    pub(crate) fn metrics(&self) -> String {
        prometheus::text(&self.status(), &self.shared.metrics())
    }

    fn status(&self) -> StatusReport {
        let (status, membership) = (self.shared.status(), self.shared.membership());
        let at = self.shared.published(|published| published.at);
        StatusReport::of(self.place, &status, &membership, at, self.now())
    }

    fn now(&self) -> Time {
        self.shared.clock.now()
    }

    async fn change(&self, change: ChangeRequest) -> Answer {
        let asked = self.now();
        let failed = |reason| Answer::Error(Fault { code: FaultCode::Failed, reason });
        let change = match change.change(&self.shared.membership()) {
            Ok(change) => change,
            Err(reason) => return failed(reason),
        };
        match reconfigure(&self.shared, change).await {
            Ok(Changed { epoch, from }) => {
                let took = self.now().since(asked);
                Answer::Changed(ChangeReport { epoch, from, took })
            }
            Err(error @ ReconfigureError::Stopped) => {
                let reason = error.to_string();
                Answer::Error(Fault { code: FaultCode::Stopped, reason })
            }
            Err(error) => failed(error.to_string()),
        }
    }

    async fn transfer(&self, to: Option<ReplicaId>) -> Answer {
        let asked = self.now();
        match transfer(&self.shared, to).await {
            Ok(ballot) => {
                let took = self.now().since(asked);
                Answer::Transferred(TransferReport { leader: ballot.leader(), ballot, took })
            }
            Err(error) => refusal(matches!(error, TransferError::Stopped), &error),
        }
    }

    async fn snapshot(&self) -> Answer {
        let asked = self.now();
        match snapshot::make(&self.shared).await {
            Ok(info) => {
                let took = self.now().since(asked);
                Answer::Snapshot(SnapshotReport::of(self.place.replica, &info, took))
            }
            Err(error) => refusal(matches!(error, MakeSnapshotError::Stopped), &error),
        }
    }

    async fn trim(&self, through: Option<Slot>) -> Answer {
        match snapshot::trim(&self.shared, through).await {
            Ok(trimmed) => Answer::Trimmed(TrimReport { replica: self.place.replica, trimmed }),
            Err(error) => refusal(matches!(error, TrimLogError::Stopped), &error),
        }
    }

    async fn export(&self, file: &str) -> Answer {
        let (asked, path) = (self.now(), PathBuf::from(file));
        if !path.is_absolute() {
            return refusal(false, &format!("{file} is no absolute path"));
        }
        match live::export(&self.shared, self.place, path).await {
            Ok(info) => Answer::Exported(ExportReport::of(file, &info, self.now().since(asked))),
            Err(error) => {
                let stopped = matches!(error, BackupError::Snapshot(MakeSnapshotError::Stopped));
                refusal(stopped, &error)
            }
        }
    }
}

/// That something was not done, and why.
fn refusal(stopped: bool, error: &impl ToString) -> Answer {
    let code = if stopped { FaultCode::Stopped } else { FaultCode::Failed };
    Answer::Error(Fault { code, reason: error.to_string() })
}
