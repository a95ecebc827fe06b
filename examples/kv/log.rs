//! Prints what the library reports, one line each, on standard error.
//!
//! Owns: the smallest subscriber that an operator can use: time since the start, level, message and
//! fields. A deployment would use one of the ready-made ones.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Takes events down to `level` and prints them.
#[derive(Debug)]
struct Printer {
    level: Level,
    started: Instant,
}

/// Prints events from here on, of the library and of this program. `KV_LOG` may say `error`,
/// `warn`, `info` (the default) or `debug`.
pub(crate) fn start() {
    let level = match std::env::var("KV_LOG").as_deref() {
        Ok("error") => Level::ERROR,
        Ok("warn") => Level::WARN,
        Ok("debug") => Level::DEBUG,
        _ => Level::INFO,
    };
    let printer = Printer { level, started: Instant::now() };
    tracing::subscriber::set_global_default(printer).expect("it is set once, at the start");
}

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The QUIC and TLS libraries speak of their own affairs; only their trouble is of use.
        let ours = metadata.target().starts_with("paxos") || metadata.target().starts_with("kv");
        *metadata.level() <= if ours { self.level } else { Level::ERROR }
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let seconds = self.started.elapsed().as_secs_f64();
        let level = event.metadata().level();
        // Nobody reads a log that cannot be written.
        let _written = writeln!(
            std::io::stderr().lock(),
            "{seconds:9.3} {level:5} {}{}",
            line.message,
            line.fields
        );
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        written.expect("writing to a string does not fail");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
