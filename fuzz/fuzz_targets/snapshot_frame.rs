#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| paxos_fuzz::run("snapshot_frame", data));
