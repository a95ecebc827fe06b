//! The command line's own mistakes.

use std::time::Duration;

use paxos::Consistency;

use crate::cli::{Invocation, SnapshotPace, parse};

fn understood(line: &str) -> Result<Invocation, String> {
    parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn the_forms_of_the_help_text_are_understood() {
    assert_eq!(understood("--help"), Ok(Invocation::Help));
    assert_eq!(understood("--version"), Ok(Invocation::Version));
    let reads = Consistency::Linearizable;
    let stale = Consistency::Stale { lag_max: Duration::from_millis(40) };
    assert_eq!(
        understood(""),
        Ok(Invocation::Demo { data: "kv-data".into(), base_port: None, reads, snapshot_mib: 64 })
    );
    assert_eq!(
        understood("--data=x --base-port 8000 --reads stale:40 --snapshot-mib 2"),
        Ok(Invocation::Demo {
            data: "x".into(),
            base_port: Some(8000),
            reads: stale,
            snapshot_mib: 2
        })
    );
    assert_eq!(
        understood("init x --replicas 5"),
        Ok(Invocation::Init {
            dir: "x".into(),
            replicas: 5,
            base_port: 7000,
            lease: None,
            from: None
        })
    );
    assert_eq!(
        understood("init x --replicas 3 --lease 400"),
        Ok(Invocation::Init {
            dir: "x".into(),
            replicas: 3,
            base_port: 7000,
            lease: Some(Duration::from_millis(400)),
            from: None
        })
    );
    assert_eq!(
        understood("init x --replicas 1 --from b"),
        Ok(Invocation::Init {
            dir: "x".into(),
            replicas: 1,
            base_port: 7000,
            lease: None,
            from: Some("b".into())
        })
    );
    assert_eq!(understood("adopt x/1"), Ok(Invocation::Adopt { dir: "x/1".into() }));
    let serve_at = |reads, trace_out, admin| {
        let dir = "x/1".into();
        let pace = SnapshotPace { every_mib: 64, mib_per_second: 64 };
        Ok(Invocation::Serve { dir, reads, trace_out, pace, admin })
    };
    let pace = SnapshotPace { every_mib: 3, mib_per_second: 5 };
    let (dir, trace_out, admin) = ("x/1".into(), None, None);
    assert_eq!(
        understood("serve x/1 --snapshot-mib 3 --snapshot-rate 5"),
        Ok(Invocation::Serve { dir, reads, trace_out, pace, admin })
    );
    let serve = |reads, trace_out| serve_at(reads, trace_out, None);
    assert_eq!(understood("serve x/1 --admin s"), serve_at(reads, None, Some("s".into())));
    assert_eq!(understood("serve x/1"), serve(reads, None));
    assert_eq!(understood("serve x/1 --trace-out t"), serve(reads, Some("t".into())));
    assert_eq!(understood("serve x/1 --reads linearizable"), serve(reads, None));
    assert_eq!(understood("serve x/1 --reads stale:40"), serve(stale, None));
    assert_eq!(understood("serve x/1 --reads quorum"), serve(Consistency::Quorum, None));
}

#[test]
fn each_mistake_is_one_line_that_names_it() {
    let mistakes = [
        ("--frobnicate", "unknown option --frobnicate"),
        ("frobnicate", "unknown command frobnicate"),
        ("--data", "--data needs a value"),
        ("--base-port x", "--base-port is 1 to 65426, not x"),
        ("--base-port 65427", "--base-port is 1 to 65426, not 65427"),
        ("--base-port 0", "--base-port is 1 to"),
        ("init", "kv init needs a directory"),
        ("init x", "kv init needs --replicas"),
        ("init x --replicas 0", "--replicas is 1 to 9, not 0"),
        ("init x --replicas 10", "--replicas is 1 to 9, not 10"),
        ("init x --replicas 3 --data y", "kv init takes no --data"),
        ("init x --replicas 3 --reads stale:1", "kv init takes no --reads"),
        ("init x --replicas 3 --lease 199", "--lease is 200 to 500 milliseconds, not 199"),
        ("init x --replicas 3 --lease 501", "--lease is 200 to 500 milliseconds, not 501"),
        ("serve x/1 --lease 400", "kv serve takes no --lease"),
        ("--lease 400", "kv alone takes no --lease"),
        ("--reads fresh", "--reads is linearizable, quorum or stale:MS, not fresh"),
        ("serve x/1 --reads stale:-1", "--reads is linearizable, quorum or stale:MS, not stale:-1"),
        ("serve", "kv serve needs a directory"),
        ("serve x y", "unexpected argument y"),
        ("serve x --base-port 1", "kv serve takes no --base-port"),
        ("--replicas 3", "kv alone takes no --replicas"),
        ("--trace-out t", "kv alone takes no --trace-out"),
        ("init x --replicas 3 --trace-out t", "kv init takes no --trace-out"),
        ("serve x --trace-out", "--trace-out needs a value"),
        ("--admin s", "kv alone takes no --admin"),
        ("init x --replicas 3 --admin s", "kv init takes no --admin"),
        ("serve x --snapshot-rate 0", "--snapshot-rate is 1 to 65536, not 0"),
        ("--snapshot-rate 3", "kv alone takes no --snapshot-rate"),
        ("init x --replicas 3 --snapshot-rate 3", "kv init takes no --snapshot-rate"),
    ];
    for (line, expected) in mistakes {
        let error = understood(line).expect_err(line);
        assert!(error.starts_with(expected), "{line}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
