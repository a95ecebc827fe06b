//! Everything that can be wrong at the start: one clear line, and an exit that is not zero.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::cluster::{Cluster, Process, free_base_port, run};
use crate::examples::wait_for;

/// The one line that a failing program prints.
fn line_of(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 1, "{errors}");
    assert!(lines[0].starts_with("kv: "), "{errors}");
    assert!(output.stdout.is_empty(), "{output:?}");
    lines[0].to_owned()
}

fn serve(cluster: &Cluster, id: u16) -> String {
    line_of(&run(&["serve".as_ref(), cluster.home(id).as_os_str()]))
}

#[test]
fn help_goes_to_standard_output() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["kv init", "kv serve", "--base-port", "UNKNOWN", "KV_LOG", "cargo run"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn unknown_options_and_commands() {
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    assert!(line_of(&run(&["--nonsense"])).contains("--nonsense"));
    assert!(line_of(&run(&["explode"])).contains("explode"));
}

#[test]
fn init_touches_nothing_that_exists() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("there");
    fs::create_dir(&dir).unwrap();
    let init = |dir: &std::path::Path| {
        run(&["init", dir.to_str().unwrap(), "--replicas", "3", "--base-port", "7000"])
    };
    assert!(line_of(&init(&dir)).contains("exists already"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let below_a_file = scratch.path().join("file");
    fs::write(&below_a_file, "x").unwrap();
    let line = line_of(&init(&below_a_file.join("dir")));
    assert!(line.contains("cannot create"), "{line}");
    let line = line_of(&init(&scratch.path().join("nope").join("dir")));
    assert!(line.ends_with("nope first") && !line.contains("unfinished"), "{line}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
}

#[test]
fn init_writes_what_serve_needs_and_nobody_else_may_read_keys() {
    let cluster = Cluster::laid_out(9);
    for id in cluster.ids() {
        let key = fs::metadata(cluster.home(id).join("key.pem")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(cluster.home(id).join("config.toml")).unwrap();
        let line = format!("clients = \"127.0.0.1:{}\"", cluster.port(id));
        assert_eq!(text.lines().filter(|found| **found == line).count(), 1);
        assert_eq!(text.matches("[[member]]").count(), 9);
    }
}

#[test]
fn directories_that_are_missing_or_not_laid_out() {
    let cluster = Cluster::laid_out(1);
    let line = line_of(&run(&["serve", "/nonexistent/1"]));
    assert!(line.contains("/nonexistent/1/config.toml"), "{line}");
    assert!(line.contains("kv init"), "{line}");
    let line = line_of(&run(&["serve".as_ref(), cluster.home(1).parent().unwrap().as_os_str()]));
    assert!(line.ends_with(cluster.home(1).to_str().unwrap()), "{line}");
    fs::remove_dir_all(cluster.home(1).join("data")).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("data was never formatted"), "{line}");
    let scratch = tempfile::tempdir().unwrap();
    let line = line_of(&run(&["--data", scratch.path().to_str().unwrap()]));
    assert!(line.contains("holds no replicas"), "{line}");
    let line = line_of(&run(&["--data", "/proc/kv-data"]));
    assert!(line.contains("cannot create"), "{line}");
}

#[test]
fn a_directory_laid_out_for_other_ports() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("d");
    let dir = dir.to_str().unwrap();
    let laid_out = run(&["init", dir, "--replicas", "3", "--base-port", "7000"]);
    assert!(laid_out.status.success());
    let line = line_of(&run(&["--data", dir, "--base-port", "8000"]));
    assert!(line.contains("127.0.0.1:7001"), "{line}");
}

#[test]
fn a_corrupt_config_is_named_with_its_line() {
    let cluster = Cluster::laid_out(1);
    let file = cluster.home(1).join("config.toml");
    let good = fs::read_to_string(&file).unwrap();
    let line_number = |text: &str, start: &str| {
        1 + text.lines().position(|line| line.starts_with(start)).unwrap()
    };
    let clients = format!("clients = \"127.0.0.1:{}\"", cluster.port(1));
    let pin = crate::cluster::setting(&cluster.home(1), "pin", 0);
    let mistakes = [
        (clients.as_str(), "clients = \"nowhere\"", "clients", "HOST:PORT"),
        (clients.as_str(), "clients = 5", "clients", "expected a string"),
        (clients.as_str(), "clients = ", "clients", "not valid TOML"),
        (clients.as_str(), "klients = \"a:1\"", "klients", "klients"),
        ("replica = 1", "replica = 7", "replica", "not among the members"),
        ("cluster = \"", "cluster = \"z", "cluster", "32 hexadecimal digits"),
        (pin.as_str(), "beef", "pin", "64 hexadecimal digits"),
    ];
    for (from, to, start, expected) in mistakes {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        fs::write(&file, &bad).unwrap();
        let line = serve(&cluster, 1);
        let place = format!("config.toml, line {}: ", line_number(&bad, start));
        assert!(line.contains(&place), "{to}: {line}");
        assert!(line.contains(expected), "{to}: {line}");
    }
    fs::write(&file, good.replace(&clients, "")).unwrap();
    assert!(serve(&cluster, 1).contains("clients"));
    fs::write(&file, [0xff, 0xfe]).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("config.toml is not a text file"), "{line}");
    fs::write(&file, "\n").unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("config.toml is empty"), "{line}");
}

#[test]
fn a_key_that_others_can_read_or_that_is_none() {
    let cluster = Cluster::laid_out(1);
    let key = cluster.home(1).join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("key.pem") && line.contains("0600"), "{line}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "no key").unwrap();
    assert!(serve(&cluster, 1).contains("key.pem"));
    fs::remove_file(&key).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("key.pem: restore it"), "{line}");
    let stranger = Cluster::laid_out(1);
    fs::copy(stranger.home(1).join("key.pem"), &key).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains("not among those pinned") && line.contains("key.pem"), "{line}");
    assert!(!line.contains("listen"), "{line}");
}

#[test]
fn busy_ports_are_named() {
    let cluster = Cluster::laid_out(1);
    let port = cluster.port(1);
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    assert!(line.contains("`clients` in") && line.contains("1/config.toml"), "{line}");
    drop(taken);
    let taken = UdpSocket::bind(("127.0.0.1", port + 100)).unwrap();
    let line = serve(&cluster, 1);
    assert!(line.contains(&format!("127.0.0.1:{}", port + 100)), "{line}");
    assert!(line.contains("`listen` in") && line.contains("1/config.toml"), "{line}");
    drop(taken);
}

#[test]
fn a_busy_port_of_any_replica_stops_kv_alone_before_it_starts_any() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let base = free_base_port();
    let taken = UdpSocket::bind(("127.0.0.1", base + 103)).unwrap();
    let port = base.to_string();
    let line = line_of(&run(&["--data", data.to_str().unwrap(), "--base-port", &port]));
    assert!(line.contains("replica 3"), "{line}");
    assert!(line.contains(&format!("127.0.0.1:{}", base + 103)), "{line}");
    // Nothing was laid out for ports that never worked, so the next start may name others.
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    let other = free_base_port().to_string();
    let mut kv = Process::start(&["--data", data.to_str().unwrap(), "--base-port", &other]);
    wait_for("a start", || kv.output().contains("Ctrl-C").then_some(()));
    kv.signal("INT");
    assert_eq!(kv.wait(), 0);
    // Once laid out, it stays: what is in it may be needed.
    let line = {
        let busy = (base + 103).to_string();
        line_of(&run(&["--data", data.to_str().unwrap(), "--base-port", &busy]))
    };
    assert!(line.contains("was laid out for clients"), "{line}");
    assert!(data.join("3").join("config.toml").exists());
    drop(taken);
}

#[test]
fn init_says_how_to_start_each_and_version_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    let output = run(&["init", dir.to_str().unwrap(), "--replicas", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for id in 1..=3 {
        let end = format!("kv serve {}/{id}", dir.display());
        assert_eq!(text.lines().filter(|line| line.ends_with(&end)).count(), 1, "{text}");
    }
    let output = run(&["--version"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim_end(), concat!("kv ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_second_process_on_one_directory_disturbs_nobody() {
    let mut cluster = Cluster::started(1);
    cluster.leader();
    let line = serve(&cluster, 1);
    assert!(line.contains("in use by another"), "{line}");
    assert_eq!(cluster.client(1).say("INCR n").unwrap(), crate::client::Answer::Integer(1));
    cluster.process(1).signal("INT");
    assert_eq!(cluster.process(1).wait(), 0);
}

#[test]
fn another_replicas_log_is_refused() {
    let cluster = Cluster::laid_out(2);
    let (one, two) = (cluster.home(1), cluster.home(2));
    fs::remove_dir_all(one.join("data")).unwrap();
    crate::cluster::copy_dir(&two.join("data"), &one.join("data"));
    let line = serve(&cluster, 1);
    assert!(line.contains("replica 2"), "{line}");
}

#[test]
fn a_start_says_who_it_is_and_how_much_memory_it_may_take() {
    let mut cluster = Cluster::started(1);
    cluster.leader();
    for text in ["replica 1 of cluster", "clients on 127.0.0.1:", "memory stays under"] {
        // It may lead before what it prints was read.
        wait_for(text, || cluster.process(1).output().contains(text).then_some(()));
    }
    let resident = wait_for("memory figures", || {
        let mut client = cluster.client(1);
        let crate::client::Answer::Bulk(text) = client.say("INFO memory").ok()? else {
            return None;
        };
        let text = String::from_utf8(text).unwrap();
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.parse::<u64>().ok()
        };
        Some((figure("used_memory_rss:")?, figure("used_memory_rss_bound:")?))
    });
    assert!(resident.0 > 0 && resident.0 < resident.1, "{resident:?}");
}
