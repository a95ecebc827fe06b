//! A whole small world: three replicas, the messages ever sent, and what may still happen.
//!
//! Owns: [`World`], and the model that stateright walks through. The network is a set:
//! a message may be delivered at any time, any number of times, or never, so loss, repetition and
//! reordering need no action of their own.
//! Invariant: everything that bears on the future is in the world and in the nodes that it names.
//! Source: protocol.md; stateright's `Model`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use paxos_core::ids::{ClusterId, GroupId, ReplicaId};
use paxos_core::membership::Membership;
use paxos_core::port::Format;
use stateright::{Model, Property};

use crate::check::{Added, check, check_agreement};
use crate::members::{Votes, reachable};
use crate::node::{Input, Node};
use crate::scope::{REPLICAS, Scope};
use crate::table::{MessageId, NodeId, Table};

/// A state of the world.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct World {
    pub(crate) nodes: [NodeId; REPLICAS],
    /// In rising order.
    pub(crate) network: Vec<MessageId>,
    campaigns: [u8; REPLICAS],
    /// The changes that were asked for, as bits.
    wished: u8,
    pub(crate) proposals: [u8; REPLICAS],
    /// Where a crash may still happen.
    victim: Option<u8>,
    /// The number of the fault, from 1.
    fault: u8,
}

impl World {
    pub(crate) fn fault(&self) -> Option<usize> {
        usize::from(self.fault).checked_sub(1)
    }
}

/// One replica takes one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) place: usize,
    pub(crate) input: Input<MessageId>,
}

/// Every world that a scope allows.
pub(crate) struct Worlds {
    scope: Scope,
    pub(crate) table: Table,
    /// The first membership, and all that may follow.
    memberships: Vec<Membership>,
    only_agreement: bool,
    faults: Mutex<Vec<String>>,
    /// Set to end a walk early.
    pub(crate) enough: AtomicBool,
}

impl Worlds {
    /// With `only_agreement` nothing is judged but that no two replicas apply different values.
    pub(crate) fn new(scope: Scope, only_agreement: bool) -> Self {
        let first = scope.first.first(scope.window);
        Self {
            scope,
            table: Table::new(scope),
            memberships: reachable(&first, scope.wishes),
            only_agreement,
            faults: Mutex::new(Vec::new()),
            enough: AtomicBool::new(false),
        }
    }

    /// What was wrong, in words.
    pub(crate) fn fault_text(&self, world: &World) -> Option<String> {
        let faults = self.faults.lock().expect("no thread panics while it holds the faults");
        world.fault().map(|fault| faults[fault].clone())
    }

    fn number_fault(&self, fault: String) -> u8 {
        let mut faults = self.faults.lock().expect("no thread panics while it holds the faults");
        let place = faults.iter().position(|known| *known == fault).unwrap_or_else(|| {
            faults.push(fault);
            faults.len() - 1
        });
        u8::try_from(place + 1).unwrap_or(u8::MAX)
    }

    /// What a step did, in words.
    pub(crate) fn describe(&self, step: Step) -> String {
        let id = ReplicaId::new(step.place as u16 + 1);
        match step.input {
            Input::Deliver(message) => {
                let (_, message) = &*self.table.message(message);
                let life = message.origin.incarnation.boot();
                format!("{id} gets {:?} of {}, life {life}", message.body, message.origin.replica)
            }
            Input::Sync => format!("{id} hears that its oldest write is durable"),
            Input::Crash => format!("{id} crashes and starts again"),
            Input::Campaign => format!("{id} campaigns"),
            Input::Moment => format!("{id} sees its short timers fire"),
            Input::Propose(request) => format!("{id} is given request {request}"),
            Input::Change(wish) => {
                let Votes { voters, prepare, accept, .. } =
                    self.scope.wishes[usize::from(wish)].into;
                format!("{id} is asked for {voters:?}, {prepare} prepare and {accept} accept")
            }
        }
    }

    /// The inputs that a replica may get, whether or not they change anything.
    fn inputs(&self, world: &World, place: usize, add: &mut impl FnMut(Input<MessageId>)) {
        let scope = &self.scope;
        for id in world.network.iter().filter(|id| id.is_for(place)) {
            add(Input::Deliver(*id));
        }
        add(Input::Sync);
        if world.proposals[place] < scope.requests {
            add(Input::Propose(world.proposals[place] + 1));
        }
        for wish in 0..scope.wishes.len() as u8 {
            if world.wished >> wish & 1 == 0 {
                add(Input::Change(wish));
            }
        }
        if world.campaigns[place] < scope.campaigns[place]
            && world.campaigns.iter().sum::<u8>() < scope.campaigns_all
            && scope.is_turn_of(place, world.campaigns.iter().sum::<u8>())
        {
            add(Input::Campaign);
        }
        if world.victim == Some(place as u8) {
            add(Input::Crash);
        }
        if scope.moments[place] {
            add(Input::Moment);
        }
    }

    fn step(&self, world: &World, step: Step) -> Option<World> {
        let Step { place, input } = step;
        let answer = self.table.answer(world.nodes[place], input)?;
        let mut next = world.clone();
        next.nodes[place] = answer.next;
        match input {
            Input::Campaign => next.campaigns[place] += 1,
            Input::Crash => next.victim = None,
            Input::Propose(request) => next.proposals[place] = request,
            Input::Change(wish) => next.wished |= 1 << wish,
            Input::Deliver(_) | Input::Sync | Input::Moment => {}
        }
        let mut fresh = Vec::new();
        for id in &answer.sent {
            if let Err(at) = next.network.binary_search(id) {
                next.network.insert(at, *id);
                fresh.push(*id);
            }
        }
        let added = Added {
            table: &self.table,
            memberships: &self.memberships,
            world: &next,
            place,
            answer: &answer,
            fresh: &fresh,
        };
        let judge = if self.only_agreement { check_agreement } else { check };
        if let Err(fault) = judge(&added) {
            next.fault = self.number_fault(fault);
        }
        Some(next)
    }
}

impl Model for Worlds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let nodes = [1, 2, 3].map(|id| {
            self.table.number(Node::new(Format {
                cluster: ClusterId::new(7),
                group: GroupId::default(),
                replica: ReplicaId::new(id),
                membership: self.memberships[0].clone(),
            }))
        });
        let world = World {
            nodes,
            network: Vec::new(),
            campaigns: [0; REPLICAS],
            wished: 0,
            proposals: [0; REPLICAS],
            victim: None,
            fault: 0,
        };
        if !self.scope.crash {
            return vec![world];
        }
        let places = 0..REPLICAS as u8;
        places.map(|place| World { victim: Some(place), ..world.clone() }).collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.fault != 0 || self.enough.load(Ordering::Relaxed) {
            return;
        }
        // Where no crash can come between, a proof that only lets go of messages to others is taken
        // at once: it commutes with everything else, and the network may keep what it lets go.
        for place in 0..REPLICAS {
            if world.victim != Some(place as u8)
                && self.table.node(world.nodes[place]).is_proof_for_others()
            {
                actions.push(Step { place, input: Input::Sync });
                return;
            }
        }
        for place in 0..REPLICAS {
            self.inputs(world, place, &mut |input| actions.push(Step { place, input }));
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.step(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no fault", |_: &Self, world: &World| world.fault == 0)]
    }
}
