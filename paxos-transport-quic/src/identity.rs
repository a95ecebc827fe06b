//! What a replica proves itself with: a key, kept in a file that only its owner may read.
//!
//! Owns: [`Identity`] and the rules of its file. Knows no network.
//! Invariants:
//! 1. A key file appears whole or not at all, and never replaces one that is there.
//! 2. A key that others can read is refused, not used with a warning.
//! 3. The pin depends on the public key alone, so the certificate around it is made anew at each
//!    start and never expires in practice.
//!
//! Source: RFC 7469 §2.4 (pins over the subject public key info).

use core::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paxos_core::membership::KeyPin;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls;

/// The largest key file that is read: a key takes a few hundred bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The key of a replica, or of a client, with a certificate around it that the key itself signed.
/// Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    key: Arc<KeyPair>,
    certificate: CertificateDer<'static>,
    pin: KeyPin,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("pin", &tls::fingerprint(&self.pin))
            .finish_non_exhaustive()
    }
}

/// Why there is no identity.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is not there.
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The file's mode lets its group or others at the key.
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no private key in PEM that can sign.
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What the parser said.
        source: rcgen::Error,
    },
    /// The file is larger than any key.
    TooLarge {
        /// The key file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No key or certificate could be made.
    Generate {
        /// What the generator said.
        source: rcgen::Error,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "there is no key file {}", path.display()),
            Self::Exposed { path, mode } => write!(
                f,
                "key file {} has mode {mode:04o}: others than its owner can reach the key; \
                 set its mode to 0600",
                path.display()
            ),
            Self::Malformed { path, source } => write!(
                f,
                "key file {} holds no private key in PEM that can sign: {source}",
                path.display()
            ),
            Self::TooLarge { path } => write!(
                f,
                "key file {} is larger than {FILE_BYTES_MAX} bytes: it is no key",
                path.display()
            ),
            Self::Io { what, path, source } => {
                write!(f, "cannot {what} {}: {source}", path.display())
            }
            Self::Generate { source } => write!(f, "cannot make a key: {source}"),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed { source, .. } | Self::Generate { source } => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. } | Self::Exposed { .. } | Self::TooLarge { .. } => None,
        }
    }
}

impl Identity {
    /// A new key, in memory alone.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(|source| IdentityError::Generate { source })?;
        Self::from_key(key)
    }

    /// The key in the PEM file at `path`, which nobody but its owner may read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let failed = |what| move |source| io_error(what, path, source);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path: path.into() });
            }
            Err(error) => return Err(io_error("open key file", path, error)),
        };
        let metadata = file.metadata().map_err(failed("inspect key file"))?;
        refuse_exposed(path, &metadata)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(IdentityError::TooLarge { path: path.into() });
        }
        let pem = io::read_to_string(file).map_err(failed("read key file"))?;
        let key = KeyPair::from_pem(&pem)
            .map_err(|source| IdentityError::Malformed { path: path.into(), source })?;
        Self::from_key(key)
    }

    /// The key at `path`; where there is no file, a new key, written there with mode 0600 and made
    /// durable before this returns. The directory must exist.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError::Missing { .. }) => {}
            other => return other,
        }
        let identity = Self::generate()?;
        match identity.create(path) {
            Ok(()) => Ok(identity),
            // Another process was faster; both are to use the same key.
            Err(IdentityError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Self::load(path)
            }
            Err(error) => Err(error),
        }
    }

    /// SHA-256 of the public key: what the other replicas' membership names this one by, and what a
    /// listener lets a client in by.
    pub fn pin(&self) -> KeyPin {
        self.pin
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    fn from_key(key: KeyPair) -> Result<Self, IdentityError> {
        let generate = |source| IdentityError::Generate { source };
        let params = CertificateParams::new(vec![tls::SERVER_NAME.into()]).map_err(generate)?;
        let certificate = params.self_signed(&key).map_err(generate)?.der().clone();
        let pin = tls::pin_of(&certificate).expect("a certificate made here parses");
        Ok(Self { key: Arc::new(key), certificate, pin })
    }

    /// Writes the key beside `path` and links it there, which fails where something stands already.
    fn create(&self, path: &Path) -> Result<(), IdentityError> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let beside = PathBuf::from(name);
        let failed = |what| move |source| io_error(what, path, source);
        let written = write_private(&beside, self.key.serialize_pem().as_bytes())
            .map_err(failed("write key file"))
            .and_then(|()| fs::hard_link(&beside, path).map_err(failed("create key file")));
        let removed = fs::remove_file(&beside).map_err(failed("remove the draft of key file"));
        written.and(removed)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io_error("sync directory", directory, source))
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { what, path: path.into(), source }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
    let of_others = mode & 0o077;
    if of_others == 0 { Ok(()) } else { Err(IdentityError::Exposed { path: path.into(), mode }) }
}

/// Where files have no mode, the directory's access rules are the operator's to set.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "its counterpart on unix can fail")]
fn refuse_exposed(_path: &Path, _metadata: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}
