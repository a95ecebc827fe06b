//! Time as the simulator sets it.
//!
//! Owns: [`SimClock`], one for each life of a simulated node, and the alarms of its tasks. Reads no
//! clock of the system.
//! Invariant: an alarm wakes its task only when the simulator says that the time has come.

use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paxos_core::ids::{LogClock, Time};
use paxos_core::sim::{Moment, Rng};

use crate::clock::{Alarm, Clock};

/// A clock that stands still between two turns.
#[derive(Clone, Debug)]
pub(super) struct SimClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    local: Time,
    wall: LogClock,
    rng: Rng,
    alarms: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    at: Time,
    waker: Option<Waker>,
}

impl SimClock {
    pub(super) fn new(moment: Moment, seed: u64) -> Self {
        let Moment { local, wall, .. } = moment;
        let state = State { local, wall, rng: Rng::new(seed), alarms: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of this turn. Wakes whoever waits for it.
    pub(super) fn set(&self, moment: Moment) {
        let mut state = self.state();
        (state.local, state.wall) = (moment.local, moment.wall);
        let now = state.local;
        let mut woken = Vec::new();
        for ring in &mut state.alarms {
            if ring.at <= now {
                woken.extend(ring.waker.take());
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The first time for which somebody waits.
    pub(super) fn next(&self) -> Option<Time> {
        let state = self.state();
        let waits = state.alarms.iter().filter(|ring| ring.waker.is_some());
        waits.map(|ring| ring.at).min()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        self.state().local
    }

    fn wall(&self) -> LogClock {
        self.state().wall
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        let mut state = self.state();
        let place = state.alarms.len();
        state.alarms.push(Ring { at: Time::ZERO, waker: None });
        Box::new(SimAlarm { clock: self.clone(), place })
    }

    fn seed(&self) -> u64 {
        self.state().rng.bits()
    }
}

#[derive(Debug)]
struct SimAlarm {
    clock: SimClock,
    place: usize,
}

impl Alarm for SimAlarm {
    fn set(&mut self, at: Time) {
        let mut state = self.clock.state();
        state.alarms[self.place] = Ring { at, waker: None };
    }

    fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        let now = state.local;
        let ring = &mut state.alarms[self.place];
        if ring.at <= now {
            return Poll::Ready(());
        }
        ring.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
