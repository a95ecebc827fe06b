//! The file of the admin socket.
//!
//! Owns: [`Socket`]: how the file appears, and that it goes again.
//! Invariants: (1) the file is nobody's but its owner's from the moment it has its name; (2) nothing but a
//! socket that nobody listens on is replaced; (3) only the file that was made here is removed.
//!
//! A socket is connected to with the right to write its file. Between `bind` and a change of its mode others
//! might have it, so it is bound within a directory of mode 0700 and moved to its name when it is 0600.

use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener as Unmanaged;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{UnixListener, UnixStream};

use crate::admin::options::AdminError;

/// The longest path of a socket, in bytes, that every Unix takes.
pub(crate) const PATH_BYTES_MAX: usize = 103;

/// A socket that is listened on. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl Socket {
    /// Makes the file, and listens.
    pub(crate) async fn bind(path: &Path) -> Result<(Self, UnixListener), AdminError> {
        replaceable(path).await?;
        let failed = |error| AdminError::Socket { path: path.to_owned(), error };
        let nursery = nursery(path);
        let cradle = nursery.join("s");
        let bytes = cradle.as_os_str().len().max(path.as_os_str().len());
        if bytes > PATH_BYTES_MAX {
            return Err(AdminError::PathTooLong { path: path.to_owned() });
        }
        fs::DirBuilder::new().mode(0o700).create(&nursery).map_err(failed)?;
        let bound = bind_within(&cradle, path);
        // The first error is the one to report.
        let _removed = fs::remove_dir_all(&nursery);
        let (listener, file) = bound.map_err(failed)?;
        // Made first, so that the file is removed if what follows fails.
        let socket = Self { path: path.to_owned(), file };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok((socket, listener))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file)
        {
            let _removed = fs::remove_file(&self.path);
        }
    }
}

fn bind_within(cradle: &Path, path: &Path) -> io::Result<(Unmanaged, (u64, u64))> {
    let listener = Unmanaged::bind(cradle)?;
    fs::set_permissions(cradle, fs::Permissions::from_mode(0o600))?;
    let file = fs::symlink_metadata(cradle)?;
    fs::rename(cradle, path)?;
    Ok((listener, (file.dev(), file.ino())))
}

/// A directory beside the file that nobody else has.
fn nursery(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{process}-{number}"))
}

/// Whether there is nothing in the way, or a socket that nobody listens on.
async fn replaceable(path: &Path) -> Result<(), AdminError> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(AdminError::Socket { path: path.to_owned(), error }),
    };
    if !file.file_type().is_socket() {
        return Err(AdminError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Whoever does not take the connection at once listens all the same.
        Ok(_) | Err(_) => Err(AdminError::InUse { path: path.to_owned() }),
    }
}
