//! Stable storage for replicas: a segmented write-ahead log, and a log in memory.
//!
//! [`Wal`] keeps promises, votes and chosen values on a disk that may lose power at any moment;
//! [`MemoryStorage`] keeps them for as long as the process lives. Both implement
//! [`paxos_core::port::Storage`], and nothing in this crate knows the protocol above that port.
//!
//! ```
//! use paxos_core::ids::{ClusterId, GroupId, ReplicaId};
//! use paxos_core::membership::Membership;
//! use paxos_core::port::{Format, Start, Storage};
//! use paxos_storage::{Wal, WalOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path().join("data");
//! let format = Format {
//!     cluster: ClusterId::new(7),
//!     group: GroupId::new(0),
//!     replica: ReplicaId::new(1),
//!     membership: Membership::voters_only([ReplicaId::new(1)])?,
//! };
//! let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
//! let mut wal = Wal::open_or_format(&dir, &format, options)?;
//! let recovered = wal.recover(0x5eed)?;
//! assert_eq!(recovered[0].start, Start::First);
//! assert_eq!(recovered[0].incarnation.boot(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! Patterns of Distributed Systems: Write-Ahead Log, Segmented Log, Low-Water Mark. The bytes are
//! drawn in docs/format.md, section "Disk".

pub mod fs;
mod index;
pub mod inspect;
mod layout;
mod log;
mod memory;
mod meta;
mod replay;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshots;
mod spare;
mod verdict;
mod wal;

pub use memory::MemoryStorage;
pub use snapshots::{SNAPSHOT_BLOCK_BYTES_MAX, SNAPSHOT_BLOCK_BYTES_MIN};
pub use wal::{SEGMENT_BYTES_MIN, SPARES_MAX, Wal, WalOptions};
