//! The kinds of faults.
//!
//! Owns: their names and what each needs of the machine. Inflicts nothing.

use crate::ability::Abilities;
use crate::shape::Shape;

/// A kind of fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// `kill -9` of one replica after another.
    Kill,
    /// `kill -9` of a majority, or of all at once.
    KillMany,
    /// SIGSTOP for 0.1 to 10 s.
    Pause,
    Partition(Shape),
    /// The links of some replicas are cut one by one and mended in another order.
    Swizzle,
    Loss,
    Delay,
    Duplicate,
    Reorder,
    /// A partition of any shape, by the kernel's packet filter.
    FilterCut,
    /// Random loss by the kernel's packet filter.
    FilterLoss,
    /// One sync fails.
    SyncError,
    /// Syncs report success and do nothing; no power is lost meanwhile.
    SyncLie,
    /// Every sync takes 20 to 300 ms.
    SyncSlow,
    /// One sync takes longer than a leader may hang.
    SyncHang,
    /// One write fails.
    WriteError,
    /// The file system of one replica is full.
    DiskFull,
}

/// What a fault strikes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Class {
    /// Which links work.
    Partition,
    /// How well links work.
    Quality,
    Process,
    Disk,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::Kill,
        Self::KillMany,
        Self::Pause,
        Self::Partition(Shape::Isolate),
        Self::Partition(Shape::Split),
        Self::Partition(Shape::Bridge),
        Self::Partition(Shape::QuorumLoss),
        Self::Partition(Shape::Chain),
        Self::Partition(Shape::OneWay),
        Self::Swizzle,
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Reorder,
        Self::FilterCut,
        Self::FilterLoss,
        Self::SyncError,
        Self::SyncLie,
        Self::SyncSlow,
        Self::SyncHang,
        Self::WriteError,
        Self::DiskFull,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillMany => "kill-many",
            Self::Pause => "pause",
            Self::Partition(Shape::Isolate) => "isolate",
            Self::Partition(Shape::Split) => "split",
            Self::Partition(Shape::Bridge) => "bridge",
            Self::Partition(Shape::QuorumLoss) => "quorum-loss",
            Self::Partition(Shape::Chain) => "chain",
            Self::Partition(Shape::OneWay) => "one-way",
            Self::Swizzle => "swizzle",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::FilterCut => "filter-cut",
            Self::FilterLoss => "filter-loss",
            Self::SyncError => "sync-error",
            Self::SyncLie => "sync-lie",
            Self::SyncSlow => "sync-slow",
            Self::SyncHang => "sync-hang",
            Self::WriteError => "write-error",
            Self::DiskFull => "disk-full",
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Kill | Self::KillMany | Self::Pause => Class::Process,
            Self::Partition(_) | Self::Swizzle | Self::FilterCut => Class::Partition,
            Self::Loss | Self::Delay | Self::Duplicate | Self::Reorder | Self::FilterLoss => {
                Class::Quality
            }
            Self::SyncError
            | Self::SyncLie
            | Self::SyncSlow
            | Self::SyncHang
            | Self::WriteError
            | Self::DiskFull => Class::Disk,
        }
    }

    /// Whether this machine can do it.
    pub(crate) fn is_possible(self, abilities: &Abilities) -> bool {
        match self {
            Self::FilterCut | Self::FilterLoss => abilities.filter.is_some(),
            Self::SyncError
            | Self::SyncLie
            | Self::SyncSlow
            | Self::SyncHang
            | Self::WriteError => abilities.strace,
            Self::DiskFull => abilities.small_disks,
            Self::Kill
            | Self::KillMany
            | Self::Pause
            | Self::Partition(_)
            | Self::Swizzle
            | Self::Loss
            | Self::Delay
            | Self::Duplicate
            | Self::Reorder => true,
        }
    }
}

/// Understands a list of names and groups.
pub(crate) fn parse(list: &str) -> Result<Vec<Fault>, String> {
    let mut chosen = Vec::new();
    for word in list.split(',') {
        let before = chosen.len();
        chosen.extend(Fault::ALL.into_iter().filter(|fault| match word {
            "all" => true,
            "network" => matches!(fault.class(), Class::Partition | Class::Quality),
            "process" => fault.class() == Class::Process,
            "disk" => fault.class() == Class::Disk,
            name => fault.name() == name,
        }));
        if chosen.len() == before {
            return Err(format!("there is no fault named {word}; see --help"));
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}
