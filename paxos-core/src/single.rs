//! Paxos for one value, and for a register that changes: what the log is made of, by itself.
//!
//! For learning, and for the few places that need one agreed value and no log. Owns the messages;
//! [`Acceptor`], [`Proposer`] and [`Register`] are in modules of their own. Sans-IO like the rest:
//! messages go in, messages come out, and what has to be durable first is a type (`gate`).
//! The acceptor obeys the very rules of the log's acceptor, from the same code.
//!
//! Not here: time. Who retries, and when, is the caller's choice; two that outbid each other should
//! wait random times. Nor learners: a proposer that sees its value chosen tells whom it likes.
//!
//! # A walk through it
//!
//! ```
//! use paxos_core::ids::ReplicaId;
//! use paxos_core::membership::Membership;
//! use paxos_core::single::{Acceptor, Answer, Proposer};
//!
//! let ids = [1, 2, 3].map(ReplicaId::new);
//! let mut acceptors = ids.map(Acceptor::new);
//! let membership = Membership::voters_only(ids).unwrap();
//! let mut alice = Proposer::new(ids[0], membership.clone(), "alice");
//!
//! // Phase 1. The ballot is written before anybody hears of it: no life uses it twice.
//! let (write, gated) = alice.prepare();
//! assert_eq!(write.state().to_string(), "1.1"); // what to keep on the disk
//! let prepare = gated.open(&write.into_durable()).unwrap();
//!
//! // Two of three promise. Each writes its promise, and only then is there a message to send.
//! let mut accept = None;
//! for (id, acceptor) in ids.into_iter().zip(&mut acceptors).take(2) {
//!     let Answer::Written(write, gated) = acceptor.prepare(prepare) else { panic!("refused") };
//!     // ... write.state() goes to the disk here ...
//!     let promise = gated.open(&write.into_durable()).unwrap();
//!     accept = alice.on_promise(id, promise);
//! }
//!
//! // Phase 2. A prepare quorum has promised and named no value: alice may propose her own. The first
//! // acceptor takes it, and then alice is gone.
//! let accept = accept.expect("two of three are a quorum");
//! assert_eq!(accept.value, "alice");
//! let Answer::Written(write, _) = acceptors[0].accept(accept) else { panic!("refused") };
//! drop(write.into_durable());
//!
//! // Another proposer, for whom the first acceptor is in the quorum, finds the value and adopts it.
//! let mut bob = Proposer::new(ids[1], membership, "bob");
//! let (mut accept, mut chosen) = (None, None);
//! for attempt in 0..2 {
//!     let (write, gated) = bob.prepare();
//!     let prepare = gated.open(&write.into_durable()).unwrap();
//!     for (id, acceptor) in ids.into_iter().zip(&mut acceptors).take(2) {
//!         match acceptor.prepare(prepare) {
//!             Answer::Written(write, gated) => {
//!                 let promise = gated.open(&write.into_durable()).unwrap();
//!                 accept = bob.on_promise(id, promise).or(accept);
//!             }
//!             Answer::Refused(reject) => bob.on_reject(reject),
//!         }
//!     }
//! }
//! let accept = accept.expect("the second attempt is above all that bob heard of");
//! assert_eq!(accept.value, "alice", "bob's own value is never proposed");
//! for (id, acceptor) in ids.into_iter().zip(&mut acceptors).skip(1) {
//!     let Answer::Written(write, gated) = acceptor.accept(accept) else { panic!("refused") };
//!     let accepted = gated.open(&write.into_durable()).unwrap();
//!     chosen = bob.on_accepted(id, accepted).or(chosen);
//! }
//! assert_eq!(chosen, Some("alice"));
//! ```
//!
//! # Early messages do not compile
//!
//! A promise cannot be taken out of its gate without a proof:
//!
//! ```compile_fail,E0616
//! use paxos_core::single::{Gated, Promise};
//! fn early(gated: Gated<Promise<u8>>) -> Promise<u8> { gated.message }
//! ```
//!
//! a proof cannot be made from nothing:
//!
//! ```compile_fail,E0451
//! let id = paxos_core::ids::ReplicaId::new(1);
//! let _ = paxos_core::single::Durable { writer: id, number: 1 };
//! ```
//!
//! nor a write be proved twice:
//!
//! ```compile_fail,E0382
//! fn twice(write: paxos_core::single::Write<u8>) {
//!     let _first = write.into_durable();
//!     let _second = write.into_durable();
//! }
//! ```
//!
//! Source: protocol.md §1; Lamport, "The Part-Time Parliament" (the Synod); Rystsov, "`CASPaxos`" (the
//! register).

mod acceptor;
mod gate;
mod proposer;
mod register;

pub use acceptor::{Acceptor, Answer, Remembered};
pub use gate::{Durable, Gated, Write};
pub use proposer::Proposer;
pub use register::Register;

use crate::ballot::Ballot;

/// Phase 1a: asks to accept nothing below this ballot.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prepare {
    /// The ballot, which nobody has used before.
    pub ballot: Ballot,
}

/// Phase 1b: nothing below this ballot will be accepted here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Promise<V> {
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// The last vote, if there is one.
    pub accepted: Option<(Ballot, V)>,
}

/// Phase 2a: proposes a value.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Accept<V> {
    /// The ballot that a prepare quorum has promised.
    pub ballot: Ballot,
    /// The one value that is proposed at it.
    pub value: V,
}

/// Phase 2b: the value of this ballot is accepted here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
}

/// A higher ballot is promised, or this one was used for another value.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Reject {
    /// The ballot that was asked for.
    pub refused: Ballot,
    /// The ballot that is promised.
    pub promised: Ballot,
}
