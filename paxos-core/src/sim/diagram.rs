//! A run as a space-time diagram: one picture, in one file, for a browser.
//!
//! Owns: [`Diagram`], the last events of a [`Trace`] as SVG or HTML. Time runs downwards, each replica is
//! a vertical line, a message an arrow from the line that it left to the line that it reached. A
//! ballot has one colour wherever it shows. Every event has a mark with its words as the title, so
//! that pointing at it tells all.
//! Invariants: every event of the window is drawn exactly once; a moment later is never drawn
//! higher; the same trace gives the same bytes.
//! Source: Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", figure 1.

#![allow(
    clippy::cast_possible_wrap,
    reason = "coordinates of a picture are far below the largest i64"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an event that has no mark of its own is drawn by its words"
)]

mod draw;
mod legend;
mod lines;
mod rows;

use super::trace::Trace;
use draw::Canvas;
use lines::Lines;
use rows::Rows;

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Diagram<'a> {
    trace: &'a Trace,
    replicas: u16,
    title: String,
    last: usize,
}

impl<'a> Diagram<'a> {
    /// The diagram of a trace of so many replicas, under a title.
    pub fn new(trace: &'a Trace, replicas: u16, title: &str) -> Self {
        Self { trace, replicas, title: title.to_owned(), last: usize::MAX }
    }

    /// Only the last so many events. Heartbeats and timers between them are drawn, faintly, and not
    /// counted.
    #[must_use]
    pub fn last(mut self, events: usize) -> Self {
        self.last = events;
        self
    }

    /// As SVG, which needs nothing else.
    pub fn svg(&self) -> String {
        let rows = Rows::new(self.trace, self.last);
        let lines = Lines::new(self.trace, &rows, self.replicas);
        let mut canvas = Canvas::new(&rows, &lines, self.replicas);
        canvas.heading(&self.title);
        canvas.lines();
        // Arrows lie under every mark and every word.
        for place in 0..rows.events.len() {
            canvas.ways(place);
        }
        for place in 0..rows.events.len() {
            canvas.event(place);
        }
        canvas.finish()
    }

    /// As a page of HTML around the SVG.
    pub fn html(&self) -> String {
        let title = draw::escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <title>{title}</title></head>\n<body style=\"margin:0;background:#fff\">\n{}</body>\
             </html>\n",
            self.svg()
        )
    }
}

#[cfg(test)]
mod tests;
