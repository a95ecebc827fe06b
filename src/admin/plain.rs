//! Ids, slots and ballots as the plain numbers and texts of JSON.
//!
//! Owns: [`Plain`], how each type is written, and the two functions that serde calls.
//! Invariant: what is written is read back as the same value.

use core::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, ReplicaId, Slot};
use paxos_core::message::Connectivity;
use paxos_core::output::Role;
use paxos_core::port::Room;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A type that JSON has no word for.
pub(crate) trait Plain: Sized {
    /// What is written in its place.
    type Form: Serialize + DeserializeOwned;

    fn form(&self) -> Self::Form;

    fn of(form: Self::Form) -> Option<Self>;
}

pub(crate) fn serialize<T: Plain, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.form().serialize(to)
}

pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::of(T::Form::deserialize(from)?).ok_or_else(|| D::Error::custom("a value out of its bounds"))
}

impl<T: Plain> Plain for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }

    fn of(form: Self::Form) -> Option<Self> {
        match form {
            Some(form) => T::of(form).map(Some),
            None => Some(None),
        }
    }
}

impl<T: Plain> Plain for Vec<T> {
    type Form = Vec<T::Form>;

    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }

    fn of(form: Self::Form) -> Option<Self> {
        form.into_iter().map(T::of).collect()
    }
}

macro_rules! numbers {
    ($($type:ty as $form:ty,)*) => {$(
        impl Plain for $type {
            type Form = $form;

            fn form(&self) -> $form {
                self.number()
            }

            fn of(form: $form) -> Option<Self> {
                Some(Self::new(form))
            }
        }
    )*};
}

numbers! {
    ReplicaId as u16,
    GroupId as u64,
    Slot as u64,
    Epoch as u32,
}

/// Milliseconds, rounded down.
impl Plain for Duration {
    type Form = u64;

    fn form(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn of(form: u64) -> Option<Self> {
        Some(Self::from_millis(form))
    }
}

/// 32 hexadecimal digits.
impl Plain for ClusterId {
    type Form = String;

    fn form(&self) -> String {
        self.to_string()
    }

    fn of(form: String) -> Option<Self> {
        u128::from_str_radix(&form, 16).ok().map(Self::new)
    }
}

/// The boot counter, a dot, and the nonce in hexadecimal digits.
impl Plain for Incarnation {
    type Form = String;

    fn form(&self) -> String {
        self.to_string()
    }

    fn of(form: String) -> Option<Self> {
        let (boot, nonce) = form.split_once('.')?;
        Some(Self::new(boot.parse().ok()?, u32::from_str_radix(nonce, 16).ok()?))
    }
}

/// The round, a dot, and the replica whose attempt it is.
impl Plain for Ballot {
    type Form = String;

    fn form(&self) -> String {
        self.to_string()
    }

    fn of(form: String) -> Option<Self> {
        let (round, leader) = form.split_once('.')?;
        Some(Self::new(round.parse().ok()?, ReplicaId::new(leader.parse().ok()?)))
    }
}

impl Plain for Role {
    type Form = String;

    fn form(&self) -> String {
        self.to_string()
    }

    fn of(form: String) -> Option<Self> {
        let all = [Self::Follower, Self::Candidate, Self::Leader, Self::Observer];
        all.into_iter().find(|role| role.to_string() == form)
    }
}

impl Plain for Connectivity {
    type Form = String;

    fn form(&self) -> String {
        match self {
            Self::Partial => "partial".to_owned(),
            Self::Quorum => "quorum".to_owned(),
        }
    }

    fn of(form: String) -> Option<Self> {
        [Self::Partial, Self::Quorum].into_iter().find(|reach| reach.form() == form)
    }
}

impl Plain for Room {
    type Form = String;

    fn form(&self) -> String {
        match self {
            Self::Ample => "ample".to_owned(),
            Self::Full => "full".to_owned(),
        }
    }

    fn of(form: String) -> Option<Self> {
        [Self::Ample, Self::Full].into_iter().find(|room| room.form() == form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<T: Plain>(value: &T) -> Option<T> {
        T::of(value.form())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let ballot = Ballot::new(u64::MAX, ReplicaId::new(31));
        assert_eq!(back(&ballot), Some(ballot));
        let life = Incarnation::new(7, 0x00ab_cdef);
        assert_eq!(back(&life), Some(life));
        let cluster = ClusterId::new(u128::MAX - 7);
        assert_eq!(back(&cluster), Some(cluster));
        assert_eq!(back(&vec![Some(Slot::MAX), None]), Some(vec![Some(Slot::MAX), None]));
        for role in [Role::Follower, Role::Candidate, Role::Leader, Role::Observer] {
            assert_eq!(back(&role), Some(role));
        }
        assert_eq!(back(&Connectivity::Partial), Some(Connectivity::Partial));
        assert_eq!(back(&Room::Full), Some(Room::Full));
        assert_eq!(back(&Duration::from_millis(17)), Some(Duration::from_millis(17)));
    }

    #[test]
    fn what_is_no_value_is_not_read() {
        for form in ["", "1", "1.x", "x.1", "-1.1", "1.70000"] {
            assert_eq!(Ballot::of(form.to_owned()), None, "{form}");
        }
        assert_eq!(Incarnation::of("1.zz".to_owned()), None);
        assert_eq!(ClusterId::of("no".to_owned()), None);
        assert_eq!(Role::of("king".to_owned()), None);
    }
}
