//! The key file and the options: clear errors before anything runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use paxos_core::membership::Member;
use paxos_transport_quic::{
    Identity, IdentityError, Limits, QuicError, QuicOptions, QuicTransport,
};

use crate::support::{self, Seat};

#[test]
fn a_key_file_is_made_once_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    assert!(matches!(
        Identity::load(&path),
        Err(IdentityError::Missing { .. })
    ));
    let made = Identity::load_or_generate(&path).unwrap();
    let permissions = fs::metadata(&path).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    assert_eq!(Identity::load(&path).unwrap().pin(), made.pin());
    assert_eq!(Identity::load_or_generate(&path).unwrap().pin(), made.pin());
    let entries = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(entries, 1, "no draft is left behind");
    assert_ne!(Identity::generate().unwrap().pin(), made.pin());
}

#[test]
fn an_exposed_or_broken_key_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    Identity::load_or_generate(&path).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_generate(&path).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("key.pem") && text.contains(&format!("{mode:04o}")),
            "{text}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "no key").unwrap();
    let error = Identity::load_or_generate(&path).unwrap_err();
    assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
    assert_eq!(
        fs::read(&path).unwrap(),
        b"no key",
        "what is there is not replaced"
    );
}

#[test]
fn the_key_does_not_show_in_debug_output() {
    let identity = Identity::generate().unwrap();
    let text = format!("{identity:?}");
    assert!(text.len() < 60, "{text}");
}

fn refusal(options: QuicOptions) -> QuicError {
    QuicTransport::new(options).unwrap_err()
}

#[tokio::test]
async fn options_are_checked_before_anything_runs() {
    let (mut seats, membership) = support::seats(2);
    let busy = seats[1].member.addresses[0].clone();

    let format = support::format(support::id(9), &membership);
    let error = refusal(QuicOptions::new(&format, Identity::generate().unwrap()));
    assert_eq!(
        error.to_string(),
        "replica 9 does not stand in the membership"
    );

    let format = support::format(support::id(1), &membership);
    let error = refusal(QuicOptions::new(&format, Identity::generate().unwrap()));
    assert!(matches!(error, QuicError::OwnKey { .. }), "{error}");

    let members = vec![seats[0].member.clone(), Member::new(support::id(2))];
    let without_key = support::membership(members);
    let options = seats[0].options(&membership).membership(without_key);
    let text = refusal(options).to_string();
    assert!(text.starts_with("replica 2 has no key pinned"), "{text}");

    let mut seat = Seat::new(1);
    let membership = support::membership(vec![seat.member.clone()]);
    let text = refusal(seat.options(&membership).listen(busy.clone())).to_string();
    assert_eq!(text, format!("address {busy} is in use"));

    let mut seat = Seat::new(1);
    let membership = support::membership(vec![seat.member.clone()]);
    let text = refusal(seat.options(&membership).listen("nonsense")).to_string();
    assert!(
        text.starts_with("address nonsense cannot be resolved"),
        "{text}"
    );

    let mut seat = Seat::new(1);
    let membership = support::membership(vec![seat.member.clone()]);
    let limits = Limits {
        keep_alive: Limits::default().idle_timeout,
        ..Limits::default()
    };
    let text = refusal(seat.options(&membership).limits(limits)).to_string();
    assert!(text.starts_with("keep_alive must be"), "{text}");
}

#[test]
fn without_a_runtime_the_error_says_so() {
    let mut seat = Seat::new(1);
    let membership = support::membership(vec![seat.member.clone()]);
    let error = refusal(seat.options(&membership));
    assert!(matches!(error, QuicError::NoRuntime), "{error}");
}
