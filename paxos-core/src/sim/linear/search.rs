//! The search for an order that explains a history.
//!
//! Owns the search of one object and the budget over all of them. May not touch the stamps beyond
//! comparing them. Invariants: the set of linearized operations and the state determine all that
//! follows, so a configuration is explored once; the list of entries is as it was whenever an
//! operation is taken back.
//!
//! Source: Wing and Gong 1993; Lowe 2017 §2.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Blocked, History, Operation, OperationId, Outcome, Specification, Verdict, Witness};

/// How far a search may go before it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most calls of [`Specification::step`] over all objects.
    pub steps: u64,
    /// The most configurations remembered at a time, which bounds memory: each is a bit per
    /// operation of the object and a state.
    pub configurations: usize,
}

impl Default for Budget {
    /// Ten million steps and a million configurations: seconds, and some hundred megabytes at most.
    fn default() -> Self {
        Self { steps: 10_000_000, configurations: 1_000_000 }
    }
}

/// Whether some order of the operations, in which each takes effect between its invocation and its
/// answer, explains every answer.
///
/// A rejected operation must not have taken effect; one that is pending may have, or not.
pub fn check<S: Specification>(
    specification: &S,
    history: &History<S::Call, S::Reply>,
    budget: Budget,
) -> Verdict {
    let mut objects: BTreeMap<S::Key, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations().iter().enumerate() {
        if !matches!(operation.outcome, Outcome::Rejected) {
            objects.entry(specification.key(&operation.call)).or_default().push(index);
        }
    }
    let mut order = Vec::new();
    let mut steps = 0;
    for (key, members) in objects {
        let mut search = Search::new(specification, history, &key, members);
        let end = search.run(budget, &mut steps);
        match end {
            End::Found => order.extend(search.order()),
            End::Failed => return Verdict::Violation(Box::new(search.witness(&key))),
            End::Exhausted => return Verdict::Undecided { key: format!("{key:?}"), steps },
        }
    }
    Verdict::Linearizable { order }
}

enum End {
    Found,
    Failed,
    Exhausted,
}

/// An invocation or an answer, in the list that is ordered by time.
struct Entry {
    /// The position of the operation among those of this object.
    member: usize,
    /// The entry of the answer, for an invocation that was answered.
    answer: Option<usize>,
    invocation: bool,
    previous: usize,
    next: usize,
}

/// A set of operations of one object.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bits(Box<[u64]>);

impl Bits {
    fn empty(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)].into())
    }

    fn flip(&mut self, index: usize) {
        self.0[index / 64] ^= 1 << (index % 64);
    }
}

/// The configurations that were explored, found by their hash.
struct Visited<T> {
    buckets: BTreeMap<u64, Vec<(Bits, T)>>,
    len: usize,
}

impl<T: Clone + Eq + Hash> Visited<T> {
    /// Adds a configuration; false if it was there.
    fn insert(&mut self, bits: &Bits, state: &T) -> bool {
        let mut hasher = DefaultHasher::new();
        bits.hash(&mut hasher);
        state.hash(&mut hasher);
        let bucket = self.buckets.entry(hasher.finish()).or_default();
        if bucket.iter().any(|(b, s)| b == bits && s == state) {
            return false;
        }
        bucket.push((bits.clone(), state.clone()));
        self.len += 1;
        true
    }
}

/// The longest explanation so far.
struct Longest<T> {
    /// Operations that were answered and are not in it.
    open: usize,
    prefix: Vec<usize>,
    state: T,
    stuck: usize,
}

struct Search<'a, S: Specification> {
    specification: &'a S,
    history: &'a History<S::Call, S::Reply>,
    /// The indices in the history of this object's operations, by invocation.
    members: Vec<usize>,
    /// The entries, after a sentinel at 0, which is its own neighbour at both ends.
    entries: Vec<Entry>,
    /// Operations that were answered and are not linearized.
    open: usize,
    linearized: Bits,
    state: S::State,
    /// The entries taken, each with the state before it.
    taken: Vec<(usize, S::State)>,
    visited: Visited<S::State>,
    longest: Option<Longest<S::State>>,
}

impl<'a, S: Specification> Search<'a, S> {
    fn new(
        specification: &'a S,
        history: &'a History<S::Call, S::Reply>,
        key: &S::Key,
        members: Vec<usize>,
    ) -> Self {
        let mut moments = Vec::new();
        for (member, &index) in members.iter().enumerate() {
            let operation = &history.operations()[index];
            moments.push((operation.invoked, false, member));
            if let Outcome::Returned { at, .. } = operation.outcome {
                moments.push((at, true, member));
            }
        }
        // At one stamp invocations come first, so that operations that touch are concurrent.
        moments.sort_unstable();
        let last = moments.len();
        let mut entries =
            vec![Entry { member: 0, answer: None, invocation: false, previous: last, next: 0 }];
        let mut invocations = vec![0; members.len()];
        for (position, (_, answer, member)) in moments.into_iter().enumerate() {
            let at = position + 1;
            let entry =
                Entry { member, answer: None, invocation: !answer, previous: position, next: 0 };
            entries.push(entry);
            entries[position].next = at;
            if answer {
                entries[invocations[member]].answer = Some(at);
            } else {
                invocations[member] = at;
            }
        }
        let open = entries.iter().filter(|e| e.answer.is_some()).count();
        Self {
            specification,
            history,
            linearized: Bits::empty(members.len()),
            members,
            entries,
            open,
            state: specification.initial(key),
            taken: Vec::new(),
            visited: Visited { buckets: BTreeMap::new(), len: 0 },
            longest: None,
        }
    }

    fn operation(&self, member: usize) -> &'a Operation<S::Call, S::Reply> {
        &self.history.operations()[self.members[member]]
    }

    /// The state after `member`, if its answer is possible in `state`.
    fn step(&self, state: &S::State, member: usize) -> Option<S::State> {
        let operation = self.operation(member);
        let reply = match &operation.outcome {
            Outcome::Returned { reply, .. } => Some(reply),
            Outcome::Pending | Outcome::Rejected => None,
        };
        self.specification.step(state, &operation.call, reply)
    }

    fn run(&mut self, budget: Budget, steps: &mut u64) -> End {
        let mut at = self.entries[0].next;
        while self.open > 0 {
            if self.entries[at].invocation {
                *steps += 1;
                if *steps > budget.steps || self.visited.len > budget.configurations {
                    return End::Exhausted;
                }
                at = if self.try_take(at) { self.entries[0].next } else { self.entries[at].next };
                continue;
            }
            // The answer of an operation that nothing before it let us take: a dead end.
            self.note_longest(at);
            let Some((entry, state)) = self.taken.pop() else { return End::Failed };
            self.put_back(entry, state);
            at = self.entries[entry].next;
        }
        End::Found
    }

    /// Takes the operation at `at` next, if that is possible and leads to a new configuration.
    fn try_take(&mut self, at: usize) -> bool {
        let member = self.entries[at].member;
        let Some(next) = self.step(&self.state, member) else { return false };
        self.linearized.flip(member);
        if !self.visited.insert(&self.linearized, &next) {
            self.linearized.flip(member);
            return false;
        }
        self.taken.push((at, std::mem::replace(&mut self.state, next)));
        self.unlink(at);
        if let Some(answer) = self.entries[at].answer {
            self.unlink(answer);
            self.open -= 1;
        }
        true
    }

    fn put_back(&mut self, at: usize, state: S::State) {
        if let Some(answer) = self.entries[at].answer {
            self.relink(answer);
            self.open += 1;
        }
        self.relink(at);
        self.linearized.flip(self.entries[at].member);
        self.state = state;
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.entries[at].previous, self.entries[at].next);
        self.entries[previous].next = next;
        self.entries[next].previous = previous;
    }

    fn relink(&mut self, at: usize) {
        let (previous, next) = (self.entries[at].previous, self.entries[at].next);
        self.entries[previous].next = at;
        self.entries[next].previous = at;
    }

    fn note_longest(&mut self, answer: usize) {
        if self.longest.as_ref().is_none_or(|longest| self.open < longest.open) {
            self.longest = Some(Longest {
                open: self.open,
                prefix: self.taken.iter().map(|(at, _)| self.entries[*at].member).collect(),
                state: self.state.clone(),
                stuck: self.entries[answer].member,
            });
        }
    }

    fn order(&self) -> impl Iterator<Item = OperationId> + '_ {
        self.taken.iter().map(|(at, _)| self.id(self.entries[*at].member))
    }

    fn id(&self, member: usize) -> OperationId {
        OperationId::new(self.members[member])
    }

    fn witness(&self, key: &S::Key) -> Witness {
        let longest = self.longest.as_ref().expect("a search fails at a dead end");
        let Outcome::Returned { at: deadline, .. } = self.operation(longest.stuck).outcome else {
            unreachable!("a dead end is an answer")
        };
        let mut blocked = Vec::new();
        for member in 0..self.members.len() {
            let possible = self.operation(member).invoked <= deadline;
            if possible && !longest.prefix.contains(&member) {
                let refused = self.step(&longest.state, member).is_none();
                blocked.push(Blocked { operation: self.id(member), refused });
            }
        }
        Witness {
            key: format!("{key:?}"),
            prefix: longest.prefix.iter().map(|&member| self.id(member)).collect(),
            state: format!("{:?}", longest.state),
            stuck: self.id(longest.stuck),
            lines: self.lines(longest, &blocked),
            blocked,
        }
    }

    fn lines(&self, longest: &Longest<S::State>, blocked: &[Blocked]) -> Vec<String> {
        /// The operations of the prefix that are worth showing.
        const SHOWN: usize = 12;
        let skipped = longest.prefix.len().saturating_sub(SHOWN);
        let mut lines = Vec::new();
        if skipped > 0 {
            lines.push(format!("… {skipped} before these"));
        }
        for &member in &longest.prefix[skipped..] {
            lines.push(format!("then {}", self.line(self.members[member])));
        }
        lines.push(format!("state {:?}", longest.state));
        for Blocked { operation, refused } in blocked {
            let why = if *refused { "cannot follow" } else { "could follow, and fails later" };
            lines.push(format!("{why}: {}", self.line(operation.index())));
        }
        lines.push(format!("stuck at {}", self.line(self.members[longest.stuck])));
        lines
    }

    fn line(&self, index: usize) -> String {
        let Operation { client, call, invoked, outcome } = &self.history.operations()[index];
        let end = match outcome {
            Outcome::Returned { reply, at } => format!("-> {reply:?} [{invoked}..{at}]"),
            Outcome::Pending | Outcome::Rejected => format!("-> ? [{invoked}..]"),
        };
        format!("#{index} client {client}: {call:?} {end}")
    }
}
