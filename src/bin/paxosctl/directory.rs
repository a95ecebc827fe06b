//! Which directory is meant.
//!
//! Owns: how a DIR of the command line becomes the data directory of a replica.

use std::path::{Path, PathBuf};

/// What is in the data directory of a replica, and nowhere else.
const META: &str = "META";
/// Where programs like `kv` keep it.
const DATA: &str = "data";

/// The data directory that this names: itself, or the one in it. One that a recovery was cut short in is
/// missing, and is named all the same.
pub(crate) fn data(named: &str) -> PathBuf {
    let named = Path::new(named);
    let inner = named.join(DATA);
    let is_home = inner.exists() || named.join(format!("{DATA}.recovering")).exists();
    if !named.join(META).exists() && is_home { inner } else { named.to_owned() }
}

/// Whether this names the directory of a replica, stopped or not.
pub(crate) fn is_data(named: &str) -> bool {
    data(named).join(META).exists()
}
