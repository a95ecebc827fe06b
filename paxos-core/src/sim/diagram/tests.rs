#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;

use super::Diagram;
use crate::message::Body;
use crate::sim::trace::{Record, Trace};
use crate::sim::{Limits, run_seed};
use crate::trace::{Event, Packet};

/// The names of all elements, if the text is well-formed.
fn elements(text: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let words = &rest[..start];
        assert!(!words.contains('>'), "a bare > in {words:?}");
        for part in words.split('&').skip(1) {
            let entity = part.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot"].contains(&entity), "&{part}");
        }
        let end = start + rest[start..].find('>').unwrap_or_else(|| panic!("unclosed {rest:.80}"));
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        assert!(!tag.contains('<'), "<{tag}>");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "the end of <{name}>");
        } else {
            let name = tag.trim_end_matches('/').split(' ').next().unwrap().to_owned();
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            all.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, Vec::<String>::new(), "never closed");
    all
}

fn numbers(svg: &str) -> Vec<u64> {
    let marks = svg.split("data-event=\"").skip(1);
    marks.map(|mark| mark.split('"').next().unwrap().parse().unwrap()).collect()
}

fn until_its_end(title: &str) -> &str {
    title.split_once("</title>").unwrap().0
}

fn trace(seed: u64) -> (Trace, u16) {
    let limits = Limits { trace_capacity: usize::MAX, commands: 20, ..Limits::default() };
    let trace = run_seed(seed, &limits).trace;
    let replicas = trace.records().filter_map(|record| record.replica).max().unwrap().number();
    (trace, replicas)
}

fn is_quiet(record: &Record) -> bool {
    let message = record.event.packet().and_then(Packet::open);
    matches!(record.event, Event::Timeout)
        || message.is_some_and(|message| matches!(message.body, Body::Heartbeat(_)))
}

#[test]
fn every_event_is_drawn_once_in_well_formed_svg() {
    for seed in 0..4 {
        let (trace, replicas) = trace(seed);
        let svg = Diagram::new(&trace, replicas, "a <seed> & its \"run\"").svg();
        let names: BTreeSet<String> = elements(&svg).into_iter().collect();
        assert!(names.contains("svg") && names.contains("title"), "{names:?}");
        let all: Vec<u64> = (0..trace.events()).collect();
        assert_eq!(numbers(&svg), all, "seed {seed}");
        // The words of each event are there to be pointed at.
        let titles: BTreeSet<&str> = svg.split("<title>").skip(1).map(until_its_end).collect();
        for record in trace.records() {
            let words = super::draw::escape(&record.to_string());
            assert!(titles.contains(&*words), "seed {seed}: {record}");
        }
    }
}

#[test]
fn the_last_events_are_counted_without_heartbeats_and_timers() {
    let (trace, replicas) = trace(7);
    let svg = Diagram::new(&trace, replicas, "seed 7").last(50).svg();
    let drawn = numbers(&svg);
    let records: Vec<&Record> = trace.records().collect();
    let telling = drawn.iter().filter(|number| !is_quiet(records[**number as usize])).count();
    assert_eq!(telling, 50);
    assert_eq!(drawn.last(), Some(&(trace.events() - 1)));
    let whole = Diagram::new(&trace, replicas, "seed 7").html();
    assert!(whole.starts_with("<!doctype html>"), "{whole:.100}");
    elements(whole.trim_start_matches("<!doctype html>"));
}

#[test]
fn time_runs_down_and_the_same_trace_gives_the_same_picture() {
    let (trace, replicas) = trace(3);
    let rows = super::rows::Rows::new(&trace, usize::MAX);
    assert!(rows.events.windows(2).all(|pair| pair[0].y <= pair[1].y));
    let arrived: Vec<_> =
        rows.events.iter().filter(|p| matches!(p.record.event, Event::Received { .. })).collect();
    assert!(!arrived.is_empty());
    assert!(arrived.iter().all(|placed| placed.others.len() == 1), "each arrival has its start");
    let diagram = Diagram::new(&trace, replicas, "seed 3");
    assert_eq!(diagram.svg(), diagram.svg());
}
