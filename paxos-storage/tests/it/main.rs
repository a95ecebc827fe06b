//! The storages through their public surface, on the simulated and on the real file system.

mod shelf;
mod support;

mod amnesia;
mod basics;
mod crashes;
mod damage;
mod device;
mod errors;
mod faults;
mod golden;
mod guards;
mod inspect;
mod memory;
mod scripts;
mod simulated;
mod snapshot_crashes;
mod snapshot_damage;
mod snapshot_faults;
mod snapshots;
mod sweep;
mod trim;
