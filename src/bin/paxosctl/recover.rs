//! `recover`: another cluster, of one replica, begins with what a survivor has.
//!
//! Owns: that nothing is done before it was said what that means, and what is said of it afterwards.

use paxos::backup::{self, Recovery, RecoveryError, Survey};
use paxos::storage::WalOptions;
use serde_json::{Value, json};

use crate::directory;
use crate::outcome::{Failure, say};
use crate::verbs::{Order, YES};

/// Small ones: the directory is used by another program's options afterwards.
fn options() -> WalOptions {
    WalOptions { segment_bytes: 4 << 20, spares: 1, ..WalOptions::default() }
}

fn failed(error: &RecoveryError) -> Failure {
    let unfinished = matches!(error, RecoveryError::Unfinished { .. });
    let action = if unfinished { format!(": give {YES} again") } else { String::new() };
    Failure::Failed(format!("{error}{action}"))
}

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let [named] = order.nodes.as_slice() else {
        return Err(Failure::Usage("recover takes one directory".to_owned()));
    };
    let dir = directory::data(named);
    if order.yes
        && let Some(ended) = Recovery::resume(&dir).map_err(|error| failed(&error))?
    {
        done(&ended, order.json);
        return Ok(());
    }
    let survey = backup::survey(&dir).map_err(|error| failed(&error))?;
    if !order.json {
        say(survey.words());
    }
    if !order.yes {
        if order.json {
            say(survey_json(&survey));
        }
        let why = format!("nothing was changed; to do it: paxosctl recover {named} {YES}");
        return Err(Failure::Failed(why));
    }
    let recovery = survey.recover(options()).map_err(|error| failed(&error))?;
    done(&recovery, order.json);
    Ok(())
}

fn survey_json(survey: &Survey) -> Value {
    let facts = survey.facts();
    let ballot = |ballot: Option<paxos::Ballot>| ballot.map(|ballot| ballot.to_string());
    json!({
        "cluster": facts.cluster.to_string(),
        "replica": facts.replica.number(),
        "life": facts.life.map(|life| life.to_string()),
        "voters": facts.voters.iter().map(|id| id.number()).collect::<Vec<_>>(),
        "snapshot": facts.snapshot.map(|made| json!({
            "slot": made.slot.number(), "bytes": made.bytes, "digest": made.digest.to_string(),
        })),
        "committed": facts.committed.number(),
        "last": facts.last.number(),
        "chosen": facts.chosen,
        "accepted": facts.accepted,
        "accepted_at": ballot(facts.accepted_at),
        "unknown": facts.unknown,
        "promised": ballot(facts.promised),
        "refused": facts.refused.map(|(by, life)| json!({
            "by": by.number(), "remembered": life.to_string(),
        })),
    })
}

fn done(recovery: &Recovery, json: bool) {
    let (dir, cluster) = (recovery.dir.display().to_string(), recovery.cluster.to_string());
    let kept = recovery.kept.as_ref().map(|kept| kept.display().to_string());
    let last = recovery.founded.map(|founded| founded.last.number());
    if json {
        say(json!({ "dir": dir, "cluster": cluster, "kept": kept, "last": last }));
        return;
    }
    say(format_args!("{dir} is the directory of cluster {cluster} from now on"));
    if let Some(last) = last {
        say(format_args!("it begins with {last} slots, and this replica alone votes in it"));
    }
    if let Some(kept) = kept {
        say(format_args!("the old one is kept as {kept}"));
    }
    say("tell its program the new cluster and its one member: for kv, kv adopt DIR/I");
}
