//! Changes of the membership, as they are asked for.
//!
//! Owns: [`ChangeRequest`], its fields' names in JSON, and what each is to the core. Knows no node.
//! Invariant: what cannot be a member's address or key is refused before anything is proposed.

use paxos_core::ids::ReplicaId;
use paxos_core::membership::{Change, KeyPin, Member, Membership};
use serde::{Deserialize, Serialize};

use crate::admin::plain;

/// A change of the membership.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ChangeRequest {
    /// A replica is to vote: it observes until it has caught up.
    Add {
        /// Its id.
        #[serde(with = "plain")]
        id: ReplicaId,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// The SHA-256 of its public keys, in hexadecimal digits.
        keys: Vec<String>,
    },
    /// A replica observes for good.
    Observe {
        /// Its id.
        #[serde(with = "plain")]
        id: ReplicaId,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// The SHA-256 of its public keys, in hexadecimal digits.
        keys: Vec<String>,
    },
    /// An observer is to vote as soon as it has caught up.
    Promote {
        /// Its id.
        #[serde(with = "plain")]
        id: ReplicaId,
    },
    /// A member leaves.
    Remove {
        /// Its id.
        #[serde(with = "plain")]
        id: ReplicaId,
    },
    /// A replica takes the place of a voter, as soon as it has caught up.
    Replace {
        /// The voter.
        #[serde(with = "plain")]
        old: ReplicaId,
        /// The replica that takes its place.
        #[serde(with = "plain")]
        id: ReplicaId,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// The SHA-256 of its public keys, in hexadecimal digits.
        keys: Vec<String>,
    },
    /// A member is reached elsewhere, or by another key. What is left out stays.
    Move {
        /// Its id.
        #[serde(with = "plain")]
        id: ReplicaId,
        /// Where it can be reached.
        #[serde(default)]
        addresses: Vec<String>,
        /// The SHA-256 of its public keys, in hexadecimal digits.
        #[serde(default)]
        keys: Vec<String>,
    },
}

impl ChangeRequest {
    /// The change that this is of a membership.
    ///
    /// # Errors
    ///
    /// In words, where a key is none, or a member that is meant is not one.
    pub fn change(self, of: &Membership) -> Result<Change, String> {
        let known = |id: ReplicaId| {
            let member = of.members().find(|member| member.id == id).cloned();
            member.ok_or_else(|| format!("{id} is not a member"))
        };
        Ok(match self {
            Self::Add { id, addresses, keys } => Change::AddVoter(member(id, addresses, &keys)?),
            Self::Observe { id, addresses, keys } => {
                Change::AddObserver(member(id, addresses, &keys)?)
            }
            Self::Promote { id } => Change::AddVoter(known(id)?),
            Self::Remove { id } => Change::Remove(id),
            Self::Replace { old, id, addresses, keys } => {
                Change::Replace { old, new: member(id, addresses, &keys)? }
            }
            Self::Move { id, addresses, keys } => {
                let (before, after) = (known(id)?, member(id, addresses, &keys)?);
                let addresses =
                    if after.addresses.is_empty() { before.addresses } else { after.addresses };
                let keys = if after.keys.is_empty() { before.keys } else { after.keys };
                Change::Addresses(Member { id, addresses, keys })
            }
        })
    }
}

fn member(id: ReplicaId, addresses: Vec<String>, keys: &[String]) -> Result<Member, String> {
    if id.number() == 0 {
        return Err("the id of a replica is 1 or above".to_owned());
    }
    let nowhere = |address: &&String| {
        let parts = address.rsplit_once(':');
        !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if let Some(address) = addresses.iter().find(nowhere) {
        return Err(format!("an address is HOST:PORT, not {address}"));
    }
    let keys = keys.iter().map(|text| {
        pin_of(text).ok_or_else(|| format!("a key is 64 hexadecimal digits, not {text}"))
    });
    Ok(Member { id, addresses, keys: keys.collect::<Result<_, _>>()? })
}

/// A key's SHA-256 from its hexadecimal digits.
pub(crate) fn pin_of(text: &str) -> Option<KeyPin> {
    let mut pin = KeyPin::default();
    if text.len() != 2 * pin.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in pin.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = core::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(number: u16) -> ReplicaId {
        ReplicaId::new(number)
    }

    fn of() -> Membership {
        let member = |number| Member {
            id: id(number),
            addresses: vec![format!("h{number}:1")],
            keys: vec![[number as u8; 32]],
        };
        let voters = vec![member(1), member(2)];
        let first = Membership::majority(voters).expect("two voters");
        first.changed(Change::AddObserver(member(3))).expect("an observer")
    }

    #[test]
    fn what_is_left_out_of_a_move_stays_and_a_promoted_observer_is_where_it_was() {
        let elsewhere = vec!["there:9".to_owned()];
        let moved = ChangeRequest::Move { id: id(2), addresses: elsewhere.clone(), keys: vec![] };
        let expected = Member { id: id(2), addresses: elsewhere, keys: vec![[2; 32]] };
        assert_eq!(moved.change(&of()), Ok(Change::Addresses(expected)));
        let keys = vec!["ab".repeat(32)];
        let rekeyed = ChangeRequest::Move { id: id(2), addresses: vec![], keys };
        let expected = Member { id: id(2), addresses: vec!["h2:1".into()], keys: vec![[0xab; 32]] };
        assert_eq!(rekeyed.change(&of()), Ok(Change::Addresses(expected)));
        let promoted = ChangeRequest::Promote { id: id(3) }.change(&of());
        let expected = of().observers()[0].clone();
        assert_eq!(promoted, Ok(Change::AddVoter(expected)));
    }

    #[test]
    fn what_can_be_no_member_is_refused() {
        let add = |number, address: &str, key: &str| ChangeRequest::Add {
            id: id(number),
            addresses: vec![address.to_owned()],
            keys: vec![key.to_owned()],
        };
        let (good, odd) = ("0f".repeat(32), "+f".repeat(32));
        for (request, words) in [
            (add(0, "h:1", &good), "1 or above"),
            (add(4, "h", &good), "HOST:PORT, not h"),
            (add(4, ":1", &good), "HOST:PORT, not :1"),
            (add(4, "h:70000", &good), "HOST:PORT"),
            (add(4, "h:1", "beef"), "64 hexadecimal digits, not beef"),
            (add(4, "h:1", &odd), "64 hexadecimal digits"),
            (ChangeRequest::Promote { id: id(9) }, "replica 9 is not a member"),
            (ChangeRequest::Move { id: id(9), addresses: vec![], keys: vec![] }, "not a member"),
        ] {
            let error = request.change(&of()).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        assert!(add(4, "h:1", &good).change(&of()).is_ok());
    }
}
