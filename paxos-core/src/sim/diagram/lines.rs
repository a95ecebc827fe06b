//! What each replica was, from where to where: down, leading, following, standing still, writing.
//!
//! Owns: [`Lines`].

use std::collections::BTreeSet;

use super::rows::{Rows, TOP};
use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::ReplicaId;
use crate::output::Role;
use crate::sim::trace::{Record, Trace};
use crate::trace::Event;

/// What a replica is for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It has no power, or stopped for good.
    Down,
    /// It follows this leader, or nobody.
    Follows(Option<Ballot>),
    /// It asks for promises.
    Campaigns,
    /// It leads.
    Leads(Ballot),
}

/// A part of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<T> {
    pub(super) id: ReplicaId,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) is: T,
}

/// Whether a write came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writing {
    Proved,
    Lost,
    Open,
}

/// Every part of every line.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) states: Vec<Span<State>>,
    pub(super) pauses: Vec<Span<()>>,
    pub(super) writes: Vec<Span<Writing>>,
    /// Every ballot that shows, in rising order: its place gives its colour.
    pub(super) ballots: Vec<Ballot>,
}

/// One replica, as it is being followed.
struct Course {
    id: ReplicaId,
    state: State,
    since: i64,
    writing: Vec<(WriteSequence, i64)>,
}

impl Course {
    /// What it is from here on; the part that ends, if it shows.
    fn turn(&mut self, state: State, y: i64) -> Option<Span<State>> {
        let span = Span { id: self.id, from: self.since, to: y, is: self.state };
        let ended = self.state != state && y > self.since;
        if self.state != state {
            (self.state, self.since) = (state, y);
        }
        ended.then_some(span)
    }
}

impl Lines {
    pub(super) fn new(trace: &Trace, rows: &Rows<'_>, replicas: u16) -> Self {
        let mut lines = Self {
            states: Vec::new(),
            pauses: Vec::new(),
            writes: Vec::new(),
            ballots: Vec::new(),
        };
        let mut courses: Vec<Course> = (1..=replicas)
            .map(|number| Course {
                id: ReplicaId::new(number),
                state: State::Down,
                since: TOP,
                writing: Vec::new(),
            })
            .collect();
        let mut ballots = BTreeSet::new();
        for (place, record) in trace.records().enumerate() {
            let shown = place.checked_sub(rows.before).map(|place| rows.events[place].y);
            let number = record.replica.map_or(0, ReplicaId::number);
            if let Some(course) = courses.get_mut(usize::from(number).wrapping_sub(1)) {
                lines.follow(course, record, shown.unwrap_or(TOP), rows);
            }
            if let Some(message) = shown.and_then(|_| record.event.packet()?.open()) {
                ballots.extend(super::draw::ballot_of(&message.body));
            }
        }
        let bottom = rows.bottom + 20;
        for course in &mut courses {
            let Course { id, state, since, .. } = *course;
            lines.states.push(Span { id, from: since, to: bottom, is: state });
            for (_, from) in course.writing.drain(..) {
                lines.writes.push(Span { id, from, to: bottom, is: Writing::Open });
            }
        }
        for span in &lines.states {
            match span.is {
                State::Leads(ballot) | State::Follows(Some(ballot)) => _ = ballots.insert(ballot),
                State::Down | State::Follows(None) | State::Campaigns => {}
            }
        }
        lines.ballots = ballots.into_iter().collect();
        lines
    }

    fn follow(&mut self, course: &mut Course, record: &Record, y: i64, rows: &Rows<'_>) {
        let id = course.id;
        let state = match &record.event {
            Event::Started { .. } => State::Follows(None),
            Event::Crashed { .. } => {
                for (_, from) in course.writing.drain(..) {
                    self.writes.push(Span { id, from, to: y, is: Writing::Lost });
                }
                State::Down
            }
            Event::Role { role: Role::Leader, leader: Some(ballot) } => State::Leads(*ballot),
            Event::Role { role: Role::Candidate, .. } => State::Campaigns,
            Event::Role { leader, .. } => State::Follows(*leader),
            Event::Persist { sequence, .. } => {
                course.writing.push((*sequence, y));
                return;
            }
            Event::Durable { through } => {
                course.writing.retain(|(sequence, from)| {
                    let proved = sequence <= through;
                    if proved && y > TOP {
                        self.writes.push(Span { id, from: *from, to: y, is: Writing::Proved });
                    }
                    !proved
                });
                return;
            }
            Event::Paused { until } => {
                let to = rows.y_of(*until);
                if to > y {
                    self.pauses.push(Span { id, from: y, to, is: () });
                }
                return;
            }
            _ => return,
        };
        self.states.extend(course.turn(state, y));
    }

    /// The colour of a ballot.
    pub(super) fn colour(&self, ballot: Option<Ballot>) -> String {
        let place = ballot.and_then(|ballot| self.ballots.binary_search(&ballot).ok());
        place.map_or_else(|| "#667085".to_owned(), |place| hue(place as u64))
    }
}

/// Neighbours in rank are far apart in colour: each is a golden angle from the last. Yellows are
/// darker than the rest, or they could not be read on white.
fn hue(place: u64) -> String {
    let hue = (212 + place * 138) % 360;
    let light = if (40..190).contains(&hue) { 34 } else { 46 };
    rgb(hue, 72, light)
}

/// A colour in the form that every viewer knows; hue in degrees, the others in hundredths.
fn rgb(hue: u64, saturation: u64, light: u64) -> String {
    let (light, saturation) = (light as i64, saturation as i64);
    let chroma = (100 - (2 * light - 100).abs()) * saturation / 100;
    let part = |shift: u64| {
        let place = ((hue + shift) % 360) as i64;
        // From 0 to 60 degrees it rises, up to 180 it stays, up to 240 it falls.
        let share = match place {
            0..60 => place * chroma / 60,
            60..180 => chroma,
            180..240 => (240 - place) * chroma / 60,
            _ => 0,
        };
        (light - chroma / 2 + share).clamp(0, 100) * 255 / 100
    };
    format!("#{:02x}{:02x}{:02x}", part(120), part(0), part(240))
}
