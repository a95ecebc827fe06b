//! Which clients that are not replicas are let in.
//!
//! Owns: [`ClientKeys`], and the one that is in force at a listener. Knows no replica: a client's key
//! opens no port but that of clients.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};

use paxos_core::membership::KeyPin;

/// Whom a listener lets in. Every client proves that it has its key; this says which keys are
/// welcome.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientKeys {
    /// Those with these pins ([`crate::Identity::pin`]), and nobody else.
    Pinned(Vec<KeyPin>),
    /// Whoever reaches the port, with any key: for networks where that proves enough. Bounds for each
    /// key do not hold a stranger who makes new ones.
    Anyone,
}

/// The keys in force, shared by the verifier and the links.
#[derive(Clone, Debug)]
pub(crate) struct SharedClients(Arc<RwLock<Allowed>>);

#[derive(Debug)]
enum Allowed {
    Pinned(BTreeSet<KeyPin>),
    Anyone,
}

impl SharedClients {
    pub(crate) fn new(keys: ClientKeys) -> Self {
        Self(Arc::new(RwLock::new(Allowed::of(keys))))
    }

    pub(crate) fn lets_in(&self, pin: &KeyPin) -> bool {
        match &*self.0.read().expect("no holder of this lock panics") {
            Allowed::Pinned(pins) => pins.contains(pin),
            Allowed::Anyone => true,
        }
    }

    pub(crate) fn replace(&self, keys: ClientKeys) {
        *self.0.write().expect("no holder of this lock panics") = Allowed::of(keys);
    }
}

impl Allowed {
    fn of(keys: ClientKeys) -> Self {
        match keys {
            ClientKeys::Pinned(pins) => Self::Pinned(pins.into_iter().collect()),
            ClientKeys::Anyone => Self::Anyone,
        }
    }
}
