//! Sequential specifications: what an object does when its callers come one at a time.
//!
//! Owns the trait and the specifications at hand: a register, a register with compare-and-swap, a
//! key-value store and a counter. Invariant: a specification is a pure function of its arguments.

use std::fmt::Debug;
use std::hash::Hash;

/// An object, described by what a single caller at a time would see.
pub trait Specification {
    /// The state of one object.
    type State: Clone + Eq + Hash + Debug;
    /// What can be called.
    type Call: Debug;
    /// What can be answered.
    type Reply: Debug;
    /// Names an object; `()` if there is one. Objects with different keys are independent.
    type Key: Ord + Clone + Debug;

    /// The object that `call` is about.
    fn key(&self, call: &Self::Call) -> Self::Key;

    /// The state of an object that nobody has called.
    fn initial(&self, key: &Self::Key) -> Self::State;

    /// The state after `call`, or `None` if the object cannot answer it with `reply` in `state`.
    ///
    /// A `reply` of `None` stands for an operation whose answer nobody saw: any will do.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;
}

/// Whether an answer that was seen, if one was, is the one that the object gives.
fn answers<R: PartialEq>(seen: Option<&R>, given: &R) -> bool {
    seen.is_none_or(|seen| seen == given)
}

/// One register that is read and written.
#[derive(Clone, Debug)]
pub struct Register<V> {
    initial: V,
}

impl<V> Register<V> {
    /// A register that holds `initial`.
    pub fn new(initial: V) -> Self {
        Self { initial }
    }
}

/// A call of a [`Register`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterCall<V> {
    /// What does it hold?
    Read,
    /// Let it hold this.
    Write(V),
}

/// An answer of a [`Register`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterReply<V> {
    /// What it held when it was read.
    Value(V),
    /// It was written.
    Written,
}

impl<V: Clone + Eq + Hash + Debug> Specification for Register<V> {
    type State = V;
    type Call = RegisterCall<V>;
    type Reply = RegisterReply<V>;
    type Key = ();

    fn key(&self, _: &Self::Call) {}

    fn initial(&self, (): &()) -> V {
        self.initial.clone()
    }

    fn step(&self, state: &V, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<V> {
        let (next, given) = match call {
            RegisterCall::Read => (state, RegisterReply::Value(state.clone())),
            RegisterCall::Write(value) => (value, RegisterReply::Written),
        };
        answers(reply, &given).then(|| next.clone())
    }
}

/// One register that is read, written, and swapped if it holds what was expected.
#[derive(Clone, Debug)]
pub struct CasRegister<V> {
    initial: V,
}

impl<V> CasRegister<V> {
    /// A register that holds `initial`.
    pub fn new(initial: V) -> Self {
        Self { initial }
    }
}

/// A call of a [`CasRegister`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasCall<V> {
    /// What does it hold?
    Read,
    /// Let it hold this.
    Write(V),
    /// Let it hold `to` if it holds `from`.
    CompareAndSwap {
        /// What it must hold.
        from: V,
        /// What it holds then.
        to: V,
    },
}

/// An answer of a [`CasRegister`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasReply<V> {
    /// What it held when it was read.
    Value(V),
    /// It was written.
    Written,
    /// Whether it held what was expected, and was therefore swapped.
    Swapped(bool),
}

impl<V: Clone + Eq + Hash + Debug> Specification for CasRegister<V> {
    type State = V;
    type Call = CasCall<V>;
    type Reply = CasReply<V>;
    type Key = ();

    fn key(&self, _: &Self::Call) {}

    fn initial(&self, (): &()) -> V {
        self.initial.clone()
    }

    fn step(&self, state: &V, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<V> {
        let (next, given) = match call {
            CasCall::Read => (state, CasReply::Value(state.clone())),
            CasCall::Write(value) => (value, CasReply::Written),
            CasCall::CompareAndSwap { from, to } if from == state => (to, CasReply::Swapped(true)),
            CasCall::CompareAndSwap { .. } => (state, CasReply::Swapped(false)),
        };
        answers(reply, &given).then(|| next.clone())
    }
}

/// A store of values by key. Each key is an object of its own.
#[derive(Clone, Debug)]
pub struct KeyValue<K, V> {
    types: std::marker::PhantomData<fn() -> (K, V)>,
}

impl<K, V> KeyValue<K, V> {
    /// An empty store.
    pub fn new() -> Self {
        Self { types: std::marker::PhantomData }
    }
}

impl<K, V> Default for KeyValue<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// A call of a [`KeyValue`] store. A value of `None` stands for a key that is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueCall<K, V> {
    /// What does the key hold?
    Get(K),
    /// Let the key hold this.
    Put(K, V),
    /// Let the key be absent.
    Delete(K),
    /// Let the key hold `to` if it holds `from`.
    CompareAndSwap {
        /// The key.
        key: K,
        /// What it must hold.
        from: Option<V>,
        /// What it holds then.
        to: Option<V>,
    },
}

/// An answer of a [`KeyValue`] store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueReply<V> {
    /// What the key held when it was read.
    Value(Option<V>),
    /// The key was put or deleted.
    Done,
    /// Whether the key held what was expected, and was therefore swapped.
    Swapped(bool),
}

impl<K: Ord + Clone + Debug, V: Clone + Eq + Hash + Debug> Specification for KeyValue<K, V> {
    type State = Option<V>;
    type Call = KeyValueCall<K, V>;
    type Reply = KeyValueReply<V>;
    type Key = K;

    fn key(&self, call: &Self::Call) -> K {
        match call {
            KeyValueCall::Get(key)
            | KeyValueCall::Put(key, _)
            | KeyValueCall::Delete(key)
            | KeyValueCall::CompareAndSwap { key, .. } => key.clone(),
        }
    }

    fn initial(&self, _: &K) -> Option<V> {
        None
    }

    fn step(
        &self,
        state: &Option<V>,
        call: &Self::Call,
        reply: Option<&Self::Reply>,
    ) -> Option<Option<V>> {
        let (next, given) = match call {
            KeyValueCall::Get(_) => (state.clone(), KeyValueReply::Value(state.clone())),
            KeyValueCall::Put(_, value) => (Some(value.clone()), KeyValueReply::Done),
            KeyValueCall::Delete(_) => (None, KeyValueReply::Done),
            KeyValueCall::CompareAndSwap { from, to, .. } if from == state => {
                (to.clone(), KeyValueReply::Swapped(true))
            }
            KeyValueCall::CompareAndSwap { .. } => (state.clone(), KeyValueReply::Swapped(false)),
        };
        answers(reply, &given).then_some(next)
    }
}

/// One counter that starts at zero and wraps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter;

/// A call of a [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterCall {
    /// What is the total?
    Read,
    /// Add this to the total. The answer does not tell the total.
    Add(i64),
    /// Add this to the total, and tell the new one.
    AddAndRead(i64),
}

/// An answer of a [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterReply {
    /// The total.
    Total(i64),
    /// It was added.
    Added,
}

impl Specification for Counter {
    type State = i64;
    type Call = CounterCall;
    type Reply = CounterReply;
    type Key = ();

    fn key(&self, _: &CounterCall) {}

    fn initial(&self, (): &()) -> i64 {
        0
    }

    fn step(&self, state: &i64, call: &CounterCall, reply: Option<&CounterReply>) -> Option<i64> {
        let (next, given) = match *call {
            CounterCall::Read => (*state, CounterReply::Total(*state)),
            CounterCall::Add(amount) => (state.wrapping_add(amount), CounterReply::Added),
            CounterCall::AddAndRead(amount) => {
                let total = state.wrapping_add(amount);
                (total, CounterReply::Total(total))
            }
        };
        answers(reply, &given).then_some(next)
    }
}
