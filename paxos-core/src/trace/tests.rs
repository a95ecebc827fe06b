use super::*;
use crate::ids::{ClientId, LogClock, RequestNumber};
use crate::value::{Batch, Command};

fn line(event: &Event) -> String {
    let mut line = String::new();
    event.write_json(Time::from_nanos(17), Some(ReplicaId::new(2)), &mut line);
    line
}

#[test]
fn an_event_is_one_line_of_json_and_what_would_break_it_is_escaped() {
    let event = Event::Note { text: "a \"quoted\" word,\nanother \\ line".to_owned() };
    let text = r#""a \"quoted\" word,\u000aanother \\ line""#;
    let whole = format!("{{\"at\":17,\"replica\":2,\"event\":\"note\",\"text\":{text}}}\n");
    assert_eq!(line(&event), whole);
}

#[test]
fn payloads_are_told_in_words_where_they_are_words_and_never_in_json() {
    let command = |payload: &'static [u8]| {
        let payload = Bytes::from_static(payload);
        Command::apply(ClientId::new(3), RequestNumber::new(4), payload)
    };
    let value = |commands| Value::Batch(Batch::new(LogClock::default(), commands));
    assert_eq!(value(vec![command(b"secret")]).to_string(), "secret");
    assert_eq!(value(vec![command(b"\x01\x02"), command(b"x")]).to_string(), "[c3#4, x]");
    let event = Event::Apply { slot: Slot::FIRST, value: value(vec![command(b"secret")]) };
    assert_eq!(event.to_string(), "hands out 1 = secret");
    assert!(!line(&event).contains("secret"), "{}", line(&event));
    assert!(line(&event).contains("\"bytes\":6"), "{}", line(&event));
}
