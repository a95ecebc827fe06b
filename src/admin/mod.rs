//! A node's admin endpoint: what an operator asks a running node, over a local socket.
//!
//! Owns: `wire`, the requests and answers and their lines of JSON; `talk`, one conversation without a
//! socket; `desk`, what an answer is made of; `report`, the answers' contents; `prometheus`, metrics as
//! text; `options`, its bounds; `socket`, the file; `serve`, the tasks. May not touch the replica, the log or the state machine:
//! it reads what the node's task wrote down, and asks of the node what [`crate::Node`] offers its program.
//! Invariants: (1) only the owner of the socket's file, and root, can speak to it; (2) connections, lines,
//! and the time that either may take are bounded; (3) nothing that is said here can stop the node or delay
//! its task; (4) a request is understood whole, or refused.
//!
//! The program `paxosctl` is the other end. docs/admin.md draws the lines and says what stays the same from
//! release to release.

mod change;
mod desk;
mod options;
mod plain;
mod prometheus;
mod report;
mod serve;
mod socket;
mod talk;
mod wire;

pub use change::ChangeRequest;
pub use options::{AdminError, AdminOptions};
pub use report::{
    ChangeReport, DisagreementReport, ExportReport, FlowReport, GovernsReport, JoiningReport,
    LeadershipReport, MemberReport, MembersReport, QuorumReport, SnapshotReport, StatusReport,
    TransferReport, TrimReport,
};
pub use serve::AdminServing;
pub use talk::LINE_BYTES_MAX;
pub use wire::{Answer, AnswerError, Fault, FaultCode, Request, VERSION};
