//! The replica's admin endpoint, which `paxosctl` talks to.
//!
//! Owns: where the socket is. Invariant: a replica whose directory cannot have a socket, because its path is
//! too long, or the disk is full, serves without one, and says so; where an option names a path that cannot
//! be had, it does not start.

use paxos::Node;
use paxos::admin::{AdminOptions, AdminServing};

use crate::config::Settings;
use crate::machine::Machine;

/// The socket's name in a replica's directory, where `paxosctl` looks for it.
const SOCKET: &str = "admin.sock";

/// Opens the endpoint of a node. The error is one line.
pub(crate) async fn open(
    node: &Node<Machine>,
    settings: &Settings,
) -> Result<Option<AdminServing>, String> {
    let own = settings.file.with_file_name(SOCKET);
    let path = settings.admin.clone().unwrap_or(own);
    match node.serve_admin(AdminOptions::socket(path)).await {
        Ok(serving) => Ok(Some(serving)),
        Err(error) if settings.admin.is_some() => Err(format!("no admin socket: {error}")),
        Err(error) => {
            tracing::warn!(%error, "no admin socket: --admin names another path");
            Ok(None)
        }
    }
}
