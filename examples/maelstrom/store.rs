//! The state machine: values by key.
//!
//! Owns: [`Store`]. Knows neither replicas nor messages.
//! Invariant: a function of the commands and of nothing else, so that all replicas answer alike.
//! Source: the workload lin-kv of Maelstrom.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::wire::{Answer, Ask, Code};

/// Keys and values are any JSON; keys are told apart by their text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Store {
    values: BTreeMap<String, Value>,
}

impl Store {
    /// Carries out one request.
    pub(crate) fn apply(&mut self, ask: Ask) -> Answer {
        let absent = |key: &Value| Answer::error(Code::NoSuchKey, &format!("key {key} is absent"));
        match ask {
            Ask::Read { key } => match self.values.get(&key.to_string()) {
                Some(value) => Answer::Read(value.clone()),
                None => absent(&key),
            },
            Ask::Write { key, value } => {
                self.values.insert(key.to_string(), value);
                Answer::Written
            }
            Ask::Cas { key, from, to } => match self.values.get_mut(&key.to_string()) {
                Some(value) if *value == from => {
                    *value = to;
                    Answer::Swapped
                }
                Some(value) => {
                    Answer::error(Code::Mismatch, &format!("key {key} holds {value}, not {from}"))
                }
                None => absent(&key),
            },
        }
    }
}
