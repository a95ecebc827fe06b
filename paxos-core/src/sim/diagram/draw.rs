//! Lines, arrows and marks as SVG.
//!
//! Owns: [`Canvas`]. Knows where things stand from `rows` and `lines`, and what they look like.

use core::fmt::Write as _;

use super::legend;
use super::lines::{Lines, Span, State, Writing};
use super::rows::{Placed, Rows, TOP};
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Time};
use crate::message::Body;
use crate::output::Role;
use crate::trace::{Delivery, Event};

/// Where the first line stands, and how far apart they are.
const LEFT: i64 = 120;
const COLUMN: i64 = 236;
/// The longest label.
const LABEL_MAX: usize = 40;

/// Text as it may stand in SVG.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The ballot that a message is under.
pub(super) fn ballot_of(body: &Body) -> Option<Ballot> {
    match body {
        Body::Prepare(message) => Some(message.ballot),
        Body::Promise(message) => Some(message.ballot),
        Body::Accept(message) => Some(message.ballot),
        Body::Accepted(message) => Some(message.ballot),
        Body::Commit(message) => Some(message.ballot),
        Body::Confirm(message) => Some(message.ballot),
        Body::Confirmed(message) => Some(message.ballot),
        Body::Transfer(message) => Some(message.ballot),
        Body::Reject(message) => Some(message.promised),
        Body::Heartbeat(_)
        | Body::Fetch(_)
        | Body::Fetched(_)
        | Body::Refused(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => None,
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= LABEL_MAX {
        return text.to_owned();
    }
    text.chars().take(LABEL_MAX - 1).chain(['\u{2026}']).collect()
}

/// The picture as far as it is drawn.
pub(super) struct Canvas<'a> {
    rows: &'a Rows<'a>,
    lines: &'a Lines,
    replicas: u16,
    out: String,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(rows: &'a Rows<'a>, lines: &'a Lines, replicas: u16) -> Self {
        Self { rows, lines, replicas, out: String::new() }
    }

    fn x(id: ReplicaId) -> i64 {
        LEFT + (i64::from(id.number()) - 1) * COLUMN
    }

    fn width(&self) -> i64 {
        (LEFT + i64::from(self.replicas) * COLUMN).max(legend::WIDTH)
    }

    fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (1..=self.replicas).map(ReplicaId::new)
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// The frame, the title, the legend, the heads of the lines and the scale of time.
    pub(super) fn heading(&mut self, title: &str) {
        let (width, height) = (self.width(), self.rows.bottom + 60);
        self.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Inter, Helvetica, Arial, sans-serif\">"
        ));
        self.put(legend::STYLE);
        self.put(&format!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"));
        let first = self.rows.events.first().map_or(0, |placed| placed.number + 1);
        let last = self.rows.events.last().map_or(0, |placed| placed.number + 1);
        self.put(&format!("<text class=\"title\" x=\"24\" y=\"38\">{}</text>", escape(title)));
        let total = self.rows.total;
        self.put(&format!(
            "<text class=\"sub\" x=\"24\" y=\"58\">events {first} to {last} of {total}; time runs \
             down, not to scale; point at anything for its words</text>"
        ));
        let colours: Vec<(String, String)> = (self.lines.ballots.iter())
            .map(|ballot| (ballot.to_string(), self.lines.colour(Some(*ballot))))
            .collect();
        legend::draw(&mut self.out, &colours);
        for id in self.ids() {
            let x = Self::x(id);
            for y in [TOP - 26, self.rows.bottom + 40] {
                self.put(&format!(
                    "<rect x=\"{}\" y=\"{}\" width=\"44\" height=\"22\" rx=\"11\" fill=\"#101828\"/>\
                     <text class=\"head\" x=\"{x}\" y=\"{}\">r{}</text>",
                    x - 22,
                    y - 15,
                    y,
                    id.number()
                ));
            }
        }
        self.scale();
    }

    /// When things happened: one label for each moment that has room for it.
    fn scale(&mut self) {
        let mut free = TOP;
        let mut told: Option<Time> = None;
        for placed in &self.rows.events {
            let at = placed.record.at;
            let millis = |time: Time| time.nanos() / 100_000;
            let is_new = told.is_none_or(|told| millis(told) != millis(at));
            if placed.is_quiet || !is_new || placed.y < free {
                continue;
            }
            let seconds = at.since(Time::ZERO).as_secs_f64();
            let (y, x) = (placed.y + 3, LEFT - 34);
            let _ = writeln!(
                self.out,
                "<text class=\"time\" x=\"{x}\" y=\"{y}\">{seconds:.4} s</text>"
            );
            (told, free) = (Some(at), placed.y + 12);
        }
        for (y, passed) in &self.rows.gaps {
            let width = self.width() - 24;
            let passed = passed.as_secs_f64();
            let _ = writeln!(
                self.out,
                "<line class=\"gap\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text class=\"gap\" x=\"{}\" y=\"{}\">{passed:.3} s pass</text>",
                LEFT - 34,
                y + 3
            );
        }
    }

    /// The lines of the replicas.
    pub(super) fn lines(&mut self) {
        for Span { id, from, to, is } in &self.lines.states {
            let (x, height) = (Self::x(*id), to - from);
            let text = match is {
                State::Down => {
                    format!(
                        "<line class=\"down\" x1=\"{x}\" x2=\"{x}\" y1=\"{from}\" y2=\"{to}\"/>"
                    )
                }
                State::Follows(leader) => {
                    let colour = leader.map_or_else(
                        || "#98a2b3".to_owned(),
                        |ballot| self.lines.colour(Some(ballot)),
                    );
                    format!(
                        "<line class=\"up\" stroke=\"{colour}\" x1=\"{x}\" x2=\"{x}\" \
                         y1=\"{from}\" y2=\"{to}\"/>"
                    )
                }
                State::Campaigns => format!(
                    "<rect class=\"campaign\" x=\"{}\" y=\"{from}\" width=\"8\" \
                     height=\"{height}\"/>",
                    x - 4
                ),
                State::Leads(ballot) => {
                    let colour = self.lines.colour(Some(*ballot));
                    format!(
                        "<rect fill=\"{colour}\" fill-opacity=\"0.16\" x=\"{}\" y=\"{from}\" \
                         width=\"20\" height=\"{height}\" rx=\"5\"/><rect fill=\"{colour}\" \
                         x=\"{}\" y=\"{from}\" width=\"6\" height=\"{height}\"/>",
                        x - 10,
                        x - 3
                    )
                }
            };
            self.put(&text);
        }
        for Span { id, from, to, .. } in &self.lines.pauses {
            let x = Self::x(*id) - 7;
            let height = to - from;
            self.put(&format!(
                "<rect class=\"pause\" x=\"{x}\" y=\"{from}\" width=\"14\" height=\"{height}\"/>"
            ));
        }
        for Span { id, from, to, is } in &self.lines.writes {
            let class = match is {
                Writing::Proved => "write",
                Writing::Lost => "write lost",
                Writing::Open => "write open",
            };
            let (x, height) = (Self::x(*id) - 16, (to - from).max(3));
            self.put(&format!(
                "<rect class=\"{class}\" x=\"{x}\" y=\"{from}\" width=\"4\" height=\"{height}\"/>"
            ));
        }
    }

    /// One event: its mark, its label, and its title.
    pub(super) fn event(&mut self, place: usize) {
        let placed = &self.rows.events[place];
        let title = escape(&placed.record.to_string());
        let class = if placed.is_quiet { "quiet" } else { "event" };
        let number = placed.number;
        let inside = match placed.record.replica {
            Some(id) => self.mark(placed, id),
            None => self.note(placed),
        };
        self.put(&format!(
            "<g class=\"{class}\" data-event=\"{number}\"><title>{title}</title>{inside}</g>"
        ));
    }

    fn note(&self, placed: &Placed<'_>) -> String {
        let (y, width) = (placed.y, self.width() - 24);
        let words = escape(&placed.record.event.to_string());
        format!(
            "<line class=\"note\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"note\" x=\"{width}\" y=\"{}\">{words}</text>",
            y - 3
        )
    }

    fn mark(&self, placed: &Placed<'_>, id: ReplicaId) -> String {
        let (x, y) = (Self::x(id), placed.y);
        let dot = |class: &str, radius: i64| {
            format!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>")
        };
        let words = |class: &str| label(x, y, class, &placed.record.event.to_string());
        match &placed.record.event {
            Event::Sent { .. } => self.sent(placed, x),
            Event::Received { .. } => self.received(placed, x),
            Event::Timeout => format!(
                "<line class=\"tick\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
                x - 5,
                x + 5
            ),
            Event::Started { incarnation, .. } => {
                dot("start", 6) + &label(x, y, "start", &format!("life {}", incarnation.boot()))
            }
            Event::Crashed { unproved } => {
                let lost = if *unproved > 0 {
                    format!("crash, {unproved} facts unproved")
                } else {
                    "crash".to_owned()
                };
                cross(x, y, 7, "crash") + &label(x, y, "crash", &lost)
            }
            Event::Paused { .. } => dot("pausing", 6) + &label(x, y, "pausing", "stands still"),
            Event::Halted { .. } => cross(x, y, 9, "crash") + &words("crash"),
            Event::Persist { writes, .. } => {
                let facts: Vec<String> = writes.iter().map(ToString::to_string).collect();
                square(x - 14, y, "persist") + &label(x, y, "persist", &facts.join(", "))
            }
            Event::ReadsReady { .. }
            | Event::ReadsLost { .. }
            | Event::QuorumReadsReady { .. }
            | Event::QuorumReadsLost { .. }
            | Event::SnapshotWanted { .. }
            | Event::SnapshotKept { .. }
            | Event::Installed { .. } => words("commit"),
            Event::Durable { through } => {
                square(x - 14, y, "durable")
                    + &label(x, y, "persist", &format!("durable {}", through.number()))
            }
            Event::Role { role, leader } => self.role(x, y, *role, *leader),
            Event::Chosen { slot, ballot, value } => {
                let colour = self.lines.colour(Some(*ballot));
                let words =
                    short(&format!("\u{2605} {} = {value} chosen at {ballot}", slot.number()));
                pill(x, y, &colour, &words)
            }
            Event::Committed { .. } | Event::Applied { .. } => {
                label(x, y, "applied", &placed.record.event.to_string())
            }
            Event::Apply { slot, value } => {
                dot("apply", 3)
                    + &label(x, y, "applied", &format!("applies {} = {value}", slot.number()))
            }
            Event::Proposed { slot, ballot } => {
                let colour = self.lines.colour(Some(*ballot));
                diamond(x, y, &colour)
                    + &label(x, y, "client", &format!("a client: slot {}", slot.number()))
            }
            Event::NotProposed { .. } => diamond(x, y, "#ffffff") + &words("client"),
            Event::ReadAsked { .. }
            | Event::QuorumReadAsked { .. }
            | Event::Load { .. }
            | Event::Loaded { .. }
            | Event::Note { .. } => words("persist"),
        }
    }

    fn role(&self, x: i64, y: i64, role: Role, leader: Option<Ballot>) -> String {
        let colour = self.lines.colour(leader);
        match (role, leader) {
            (Role::Leader, Some(ballot)) => pill(x, y, &colour, &format!("leads at {ballot}")),
            (Role::Candidate, _) => label(x, y, "role", "campaigns"),
            (_, Some(ballot)) => label(x, y, "role", &format!("follows {ballot}")),
            (Role::Leader | Role::Follower | Role::Observer, None) => {
                label(x, y, "role", "follows nobody")
            }
        }
    }

    /// The ways of a message that left, as far as they are known.
    pub(super) fn ways(&mut self, place: usize) {
        let placed = &self.rows.events[place];
        let (Some(id), Event::Sent { to, delivery, .. }) =
            (placed.record.replica, &placed.record.event)
        else {
            return;
        };
        let (x, y, goal) = (Self::x(id), placed.y, Self::x(*to));
        let ballot = placed.message.as_ref().and_then(|message| ballot_of(&message.body));
        let colour = self.lines.colour(ballot);
        let mut text = String::new();
        for arrival in &placed.others {
            let end = self.rows.events[*arrival].y;
            let class = if *delivery == Delivery::Held { "way held" } else { "way" };
            let side = if goal > x { -4 } else { 4 };
            let _ = write!(
                text,
                "<line class=\"{class}\" stroke=\"{colour}\" x1=\"{x}\" y1=\"{y}\" x2=\"{}\" \
                 y2=\"{end}\"/>",
                goal + side
            );
        }
        if placed.others.is_empty() {
            text.push_str(&unarrived(x, y, goal, *delivery, &colour));
        }
        let title = escape(&placed.record.to_string());
        let class = if placed.is_quiet { "quiet" } else { "event" };
        self.put(&format!("<g class=\"{class}\"><title>{title}</title>{text}</g>"));
    }

    /// A message that left: its label, once for all to whom it left.
    fn sent(&self, placed: &Placed<'_>, x: i64) -> String {
        let ballot = placed.message.as_ref().and_then(|message| ballot_of(&message.body));
        if placed.is_copy || placed.is_quiet {
            return String::new();
        }
        let words = placed.record.event.packet().map_or(String::new(), ToString::to_string);
        // Where the sender's prefix stands is in the title.
        let words = words.split("; committed").next().unwrap_or_default();
        coloured(x, placed.y, &self.lines.colour(ballot), words)
    }

    /// A message that arrived: the head of its arrow.
    fn received(&self, placed: &Placed<'_>, x: i64) -> String {
        let y = placed.y;
        let ballot = placed.message.as_ref().and_then(|message| ballot_of(&message.body));
        let colour = self.lines.colour(ballot);
        let from = match placed.record.event {
            Event::Received { from, .. } => Self::x(from),
            _ => x,
        };
        let back = if from < x { -8 } else { 8 };
        let (low, high) = (y - 4, y + 1);
        let mut text = format!(
            "<path fill=\"{colour}\" d=\"M{x} {y} L{} {low} L{} {}Z\"/>",
            x + back,
            x + back,
            high + 1
        );
        if placed.others.is_empty() {
            // It left before the window.
            let start = x + back * 6;
            let _ = write!(
                text,
                "<line class=\"way\" stroke=\"{colour}\" x1=\"{start}\" y1=\"{}\" x2=\"{}\" y2=\"{y}\"/>",
                y - 10,
                x + back
            );
        }
        text
    }

    /// The whole picture.
    pub(super) fn finish(mut self) -> String {
        self.put("</svg>");
        self.out
    }
}

/// A message that never arrived, within the window at least.
fn unarrived(x: i64, y: i64, goal: i64, delivery: Delivery, colour: &str) -> String {
    let end = x + (goal - x).signum() * 62;
    let low = y + 12;
    let way = format!(
        "<line class=\"way short\" stroke=\"{colour}\" x1=\"{x}\" y1=\"{y}\" x2=\"{end}\" y2=\"{low}\"/>"
    );
    let mark = match delivery {
        Delivery::Lost | Delivery::Full => cross(end, low, 4, "lost"),
        Delivery::Cut => format!(
            "<line class=\"cut\" x1=\"{end}\" x2=\"{end}\" y1=\"{}\" y2=\"{}\"/>",
            low - 6,
            low + 6
        ),
        Delivery::Held => format!("<circle class=\"hold\" cx=\"{end}\" cy=\"{low}\" r=\"4\"/>"),
        Delivery::Sent | Delivery::Twice => String::new(),
    };
    way + &mark
}

fn label(x: i64, y: i64, class: &str, words: &str) -> String {
    let words = escape(&short(words));
    format!("<text class=\"label {class}\" x=\"{}\" y=\"{}\">{words}</text>", x + 13, y + 4)
}

fn coloured(x: i64, y: i64, colour: &str, words: &str) -> String {
    let words = escape(&short(words));
    format!(
        "<circle fill=\"{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/><text class=\"label\" \
         fill=\"{colour}\" x=\"{}\" y=\"{}\">{words}</text>",
        x + 13,
        y + 4
    )
}

fn pill(x: i64, y: i64, colour: &str, words: &str) -> String {
    let width = words.chars().count() as i64 * 6 + 14;
    format!(
        "<rect fill=\"{colour}\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"15\" rx=\"7\"/>\
         <text class=\"pill\" x=\"{}\" y=\"{}\">{}</text>",
        x + 11,
        y - 7,
        x + 18,
        y + 4,
        escape(words)
    )
}

fn cross(x: i64, y: i64, size: i64, class: &str) -> String {
    let (left, right, low, high) = (x - size, x + size, y - size, y + size);
    format!(
        "<path class=\"{class}\" d=\"M{left} {low} L{right} {high} M{right} {low} L{left} {high}\"/>"
    )
}

fn square(x: i64, y: i64, class: &str) -> String {
    format!("<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"8\" height=\"8\"/>", x - 4, y - 4)
}

fn diamond(x: i64, y: i64, colour: &str) -> String {
    let (left, right, low, high) = (x - 6, x + 6, y - 6, y + 6);
    format!(
        "<path class=\"diamond\" fill=\"{colour}\" d=\"M{x} {low} L{right} {y} L{x} {high} L{left} {y}Z\"/>"
    )
}
