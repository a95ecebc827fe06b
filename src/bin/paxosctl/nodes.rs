//! Which sockets are meant.
//!
//! Owns: how a NODE of the command line becomes paths of sockets. Connects to nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// What a node's socket is called in its directory.
const SOCKET: &str = "admin.sock";

/// The sockets that these name, each once, in the order given.
pub(crate) fn sockets(nodes: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let mut sockets: Vec<PathBuf> = Vec::new();
    for node in nodes {
        for socket in named(Path::new(node))? {
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
    }
    Ok(sockets)
}

/// The one socket that these name, for a verb that takes one.
pub(crate) fn one(verb: &str, nodes: &[String]) -> Result<PathBuf, Failure> {
    match <[PathBuf; 1]>::try_from(sockets(nodes)?) {
        Ok([socket]) => Ok(socket),
        Err(sockets) => {
            Err(Failure::Usage(format!("{verb} takes one node, not {}", sockets.len())))
        }
    }
}

/// Where nothing is found, the socket that should be there: whoever asks it says that nobody listens.
fn named(node: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = node.display();
    let Ok(file) = fs::metadata(node) else {
        return Ok(vec![node.to_owned()]);
    };
    if file.file_type().is_socket() {
        return Ok(vec![node.to_owned()]);
    }
    if !file.is_dir() {
        return Err(Failure::Usage(format!("{shown} is neither a socket nor a directory")));
    }
    let own = node.join(SOCKET);
    if own.exists() {
        return Ok(vec![own]);
    }
    let entries = fs::read_dir(node)
        .map_err(|error| Failure::Failed(format!("cannot read {shown}: {error}")))?;
    let entries = entries.flatten().map(|entry| entry.path().join(SOCKET));
    let mut found: Vec<_> = entries.filter(|socket| socket.exists()).collect();
    found.sort();
    Ok(if found.is_empty() { vec![own] } else { found })
}
