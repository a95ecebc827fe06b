//! Histories: what clients called, what they were answered, and when.
//!
//! Owns the record of operations. It judges nothing. Invariant: an operation ends at most once, and
//! not before it began.

/// Names an operation of one [`History`], in the order of invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

impl OperationId {
    /// The position of the operation in [`History::operations`].
    pub fn index(self) -> usize {
        self.0
    }

    pub(super) fn new(index: usize) -> Self {
        Self(index)
    }
}

/// How an operation ended, as far as its caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Nothing is known: it may have taken effect at any moment after its invocation, may still do
    /// so, or never.
    Pending,
    /// It was answered.
    Returned {
        /// The answer.
        reply: R,
        /// The stamp of the answer, at or after that of the invocation.
        at: u64,
    },
    /// It has certainly not taken effect and never will.
    Rejected,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<C, R> {
    /// Who called. It matters to the reader of a witness alone: real time is the only order.
    pub client: u64,
    /// What was called.
    pub call: C,
    /// The stamp of the invocation.
    pub invoked: u64,
    /// How it ended.
    pub outcome: Outcome<R>,
}

/// The operations of any number of clients on any number of objects.
///
/// Stamps are in a unit of the caller's choice and come from one clock. An operation comes before
/// another only if it was answered at a *lower* stamp than that of the other's invocation: equal
/// stamps are concurrent, which never turns a linearizable history into a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History<C, R> {
    operations: Vec<Operation<C, R>>,
}

impl<C, R> History<C, R> {
    /// A history without operations.
    pub fn new() -> Self {
        Self { operations: Vec::new() }
    }

    /// Records that `client` called at stamp `at`. Until it is told otherwise, the outcome is
    /// [`Outcome::Pending`].
    pub fn invoke(&mut self, client: u64, call: C, at: u64) -> OperationId {
        self.operations.push(Operation { client, call, invoked: at, outcome: Outcome::Pending });
        OperationId(self.operations.len() - 1)
    }

    /// Records the answer to `id` at stamp `at`.
    ///
    /// An operation that was already answered or rejected, and an answer from before the
    /// invocation, are mistakes of the recorder, and panic.
    pub fn complete(&mut self, id: OperationId, reply: R, at: u64) {
        let operation = self.open(id);
        assert!(at >= operation.invoked, "an operation ends after it began");
        operation.outcome = Outcome::Returned { reply, at };
    }

    /// Records that `id` has certainly not taken effect and never will.
    ///
    /// An operation that was already answered or rejected is a mistake of the recorder, and panics.
    pub fn reject(&mut self, id: OperationId) {
        self.open(id).outcome = Outcome::Rejected;
    }

    /// All operations, in the order in which [`History::invoke`] was called.
    pub fn operations(&self) -> &[Operation<C, R>] {
        &self.operations
    }

    /// The number of operations that were answered.
    pub fn returned(&self) -> usize {
        let answered = |o: &&Operation<C, R>| matches!(o.outcome, Outcome::Returned { .. });
        self.operations.iter().filter(answered).count()
    }

    fn open(&mut self, id: OperationId) -> &mut Operation<C, R> {
        let operation = self.operations.get_mut(id.0).expect("the id is of this history");
        assert!(matches!(operation.outcome, Outcome::Pending), "an operation ends once");
        operation
    }
}
