//! `export`: a backup in a file.
//!
//! Owns: whether a running node is asked or a directory read, and what is said of the file.

use std::path::Path;
use std::time::{Duration, Instant};

use paxos::admin::{Answer, ExportReport, Request};
use paxos::backup;
use serde_json::json;

use crate::ask::{self, Trouble};
use crate::directory;
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::snapshot;
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let [place, file] = order.nodes.as_slice() else {
        return Err(Failure::Usage("export takes a node and a file".to_owned()));
    };
    let asked = nodes::one("export", std::slice::from_ref(place)).and_then(|socket| {
        let request = Request::Export { file: absolute(file)? };
        match ask::one(&socket, request, order.timeout) {
            Ok(Answer::Exported(report)) => Ok(report),
            Ok(_) => Err(ask::unexpected(&socket).into()),
            Err(Trouble::Silence(why)) => Err(Failure::Silence(why)),
            Err(trouble) => Err(trouble.into()),
        }
    });
    let report = match asked {
        // Nobody runs in it, or the lock says otherwise.
        Err(Failure::Silence(_)) if directory::is_data(place) => stopped(place, file)?,
        asked => asked?,
    };
    if order.json {
        say(json!(report));
        return Ok(());
    }
    say(format_args!(
        "{}: {} bytes, of cluster {}",
        report.file, report.file_bytes, report.cluster
    ));
    if let Some(made) = &report.snapshot {
        say(snapshot::words(made));
    }
    if report.values > 0 {
        say(format_args!("and {} slots after it, up to {}", report.values, report.last));
    }
    Ok(())
}

/// The node is another process, with a working directory of its own.
fn absolute(file: &str) -> Result<String, Failure> {
    let path = std::path::absolute(Path::new(file));
    let path = path.map_err(|error| Failure::Failed(format!("cannot find {file}: {error}")))?;
    let text = path.to_str().map(ToOwned::to_owned);
    text.ok_or_else(|| Failure::Usage(format!("{} is not UTF-8", path.display())))
}

fn stopped(place: &str, file: &str) -> Result<ExportReport, Failure> {
    let began = Instant::now();
    let info = backup::export_stopped(directory::data(place), file)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let took: Duration = began.elapsed();
    Ok(ExportReport::of(file, &info, took))
}
