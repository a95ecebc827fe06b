//! What a request asks for: an operation on the map, or something that this process answers itself.
//!
//! Owns: the names of commands, their arguments' number and kind, the texts of their errors (as
//! Redis words them, for clients match on them), and the replies that need no replicated state.
//! Invariant: a request that passes here can be executed; limits on keys and values hold behind it.

use bytes::Bytes;

use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::resp::{Reply, parse_integer};
use crate::store::{Condition, Op, Read, Refusal, Write};

/// What to do about a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Execute this on the map.
    Op(Op),
    /// Say this.
    Answer(Reply),
    /// Say what this process knows of itself.
    Info(InfoSection),
    /// Say this and close the connection.
    Quit,
}

/// Which part of `INFO` is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum InfoSection {
    All,
    Server,
    Clients,
    Memory,
    Stats,
    Paxos,
    Snapshots,
    Keyspace,
    /// One that this server does not have: an empty answer, as Redis gives.
    Unknown,
}

/// Longer than any name of a command or an option.
const NAME_MAX: usize = 16;

/// Turns a request into what to do. Takes the arguments out of the list.
pub(crate) fn understand(arguments: &mut Vec<Bytes>) -> Request {
    let mut upper = [0; NAME_MAX];
    let name = uppercase(&arguments[0], &mut upper);
    dispatch(name, arguments).unwrap_or_else(|error| Request::Answer(Reply::Error(error)))
}

fn dispatch(name: &[u8], arguments: &mut Vec<Bytes>) -> Result<Request, String> {
    let given = arguments.len();
    let exactly = |count: usize| wrong_number_unless(given == count, name);
    let at_least = |count: usize| wrong_number_unless(given >= count, name);
    let op = match name {
        b"GET" => {
            exactly(2)?;
            Op::Read(Read::Get(key(arguments, 1)?))
        }
        b"SET" => {
            at_least(3)?;
            set(arguments)?
        }
        b"GETDEL" => {
            exactly(2)?;
            Op::Write(Write::GetDel(key(arguments, 1)?))
        }
        b"DEL" => {
            at_least(2)?;
            Op::Write(Write::Del(keys(arguments)?))
        }
        b"EXISTS" => {
            at_least(2)?;
            Op::Read(Read::Exists(keys(arguments)?))
        }
        b"INCR" => {
            exactly(2)?;
            add(arguments, 1)?
        }
        b"DECR" => {
            exactly(2)?;
            add(arguments, -1)?
        }
        b"INCRBY" => {
            exactly(3)?;
            let delta = parse_integer(&arguments[2]).ok_or(NOT_AN_INTEGER)?;
            add(arguments, delta)?
        }
        b"APPEND" => {
            exactly(3)?;
            let (key, value) = (key(arguments, 1)?, value(arguments, 2)?);
            Op::Write(Write::Append { key, value })
        }
        b"STRLEN" => {
            exactly(2)?;
            Op::Read(Read::StrLen(key(arguments, 1)?))
        }
        b"MGET" => {
            at_least(2)?;
            Op::Read(Read::MGet(keys(arguments)?))
        }
        b"MSET" => {
            wrong_number_unless(given >= 3 && given % 2 == 1, name)?;
            mset(arguments)?
        }
        b"DBSIZE" => {
            exactly(1)?;
            Op::Read(Read::DbSize)
        }
        _ => return local(name, arguments),
    };
    Ok(Request::Op(op))
}

/// What is answered without the map.
fn local(name: &[u8], arguments: &mut Vec<Bytes>) -> Result<Request, String> {
    let given = arguments.len();
    let reply = match name {
        b"PING" => {
            wrong_number_unless(given <= 2, name)?;
            match arguments.pop() {
                Some(text) if given == 2 => Reply::Bulk(text),
                _ => Reply::Simple("PONG"),
            }
        }
        b"ECHO" => {
            wrong_number_unless(given == 2, name)?;
            Reply::Bulk(std::mem::take(&mut arguments[1]))
        }
        b"INFO" => return Ok(Request::Info(info_section(&arguments[1..]))),
        b"QUIT" => return Ok(Request::Quit),
        b"SELECT" => {
            wrong_number_unless(given == 2, name)?;
            match parse_integer(&arguments[1]) {
                Some(0) => Reply::Simple("OK"),
                Some(_) => return Err("ERR DB index is out of range".into()),
                None => return Err("ERR invalid DB index".into()),
            }
        }
        b"HELLO" => hello(&arguments[1..])?,
        b"COMMAND" => command(&arguments[1..])?,
        b"CONFIG" => config(arguments)?,
        b"CLIENT" => client(arguments)?,
        _ => return Err(unknown(arguments)),
    };
    Ok(Request::Answer(reply))
}

fn set(arguments: &mut [Bytes]) -> Result<Op, String> {
    let mut condition = Condition::Always;
    let mut old = false;
    for option in &arguments[3..] {
        let mut upper = [0; NAME_MAX];
        match (uppercase(option, &mut upper), condition) {
            (b"NX", Condition::Always | Condition::Absent) => condition = Condition::Absent,
            (b"XX", Condition::Always | Condition::Present) => condition = Condition::Present,
            (b"GET", _) => old = true,
            (b"EX" | b"PX" | b"EXAT" | b"PXAT" | b"KEEPTTL" | b"IFEQ" | b"IFGT", _) => {
                return Err(format!(
                    "ERR the option {} of SET is not supported here: NX, XX and GET are",
                    shown(option)
                ));
            }
            _ => return Err("ERR syntax error".into()),
        }
    }
    Ok(Op::Write(Write::Set {
        key: key(arguments, 1)?,
        value: value(arguments, 2)?,
        condition,
        old,
    }))
}

fn add(arguments: &mut [Bytes], delta: i64) -> Result<Op, String> {
    let key = key(arguments, 1)?;
    Ok(Op::Write(Write::Add { key, delta }))
}

fn mset(arguments: &mut [Bytes]) -> Result<Op, String> {
    let pairs = (1..arguments.len())
        .step_by(2)
        .map(|at| Ok((key(arguments, at)?, value(arguments, at + 1)?)))
        .collect::<Result<_, String>>()?;
    Ok(Op::Write(Write::MSet(pairs)))
}

fn keys(arguments: &mut [Bytes]) -> Result<Vec<Bytes>, String> {
    (1..arguments.len()).map(|at| key(arguments, at)).collect()
}

fn key(arguments: &mut [Bytes], at: usize) -> Result<Bytes, String> {
    bounded(arguments, at, "key", KEY_BYTES_MAX)
}

fn value(arguments: &mut [Bytes], at: usize) -> Result<Bytes, String> {
    bounded(arguments, at, "value", VALUE_BYTES_MAX)
}

fn bounded(
    arguments: &mut [Bytes],
    at: usize,
    what: &str,
    bytes_max: usize,
) -> Result<Bytes, String> {
    let argument = std::mem::take(&mut arguments[at]);
    if argument.len() > bytes_max {
        return Err(format!(
            "TOOLARGE a {what} has at most {bytes_max} bytes, this one has {}; nothing was done",
            argument.len()
        ));
    }
    Ok(argument)
}

fn hello(options: &[Bytes]) -> Result<Reply, String> {
    match options.first().map(|version| parse_integer(version)) {
        None | Some(Some(2)) => {}
        Some(Some(_)) => return Err("NOPROTO unsupported protocol version".into()),
        Some(None) => {
            return Err("ERR Protocol version is not an integer or out of range".into());
        }
    }
    let mut rest = options.iter().skip(1);
    while let Some(option) = rest.next() {
        let mut upper = [0; NAME_MAX];
        match uppercase(option, &mut upper) {
            b"SETNAME" if rest.next().is_some() => {}
            b"AUTH" => return Err("ERR this server has no passwords".into()),
            _ => return Err("ERR Syntax error in HELLO option".into()),
        }
    }
    Ok(Reply::Array(vec![
        Reply::text("server"),
        Reply::text("multi-paxos kv"),
        Reply::text("version"),
        Reply::text(env!("CARGO_PKG_VERSION")),
        Reply::text("proto"),
        Reply::Integer(2),
        Reply::text("mode"),
        Reply::text("standalone"),
        Reply::text("role"),
        Reply::text("master"),
        Reply::text("modules"),
        Reply::Array(Vec::new()),
    ]))
}

/// Tables of commands are for clients' hints: this server has none.
fn command(arguments: &[Bytes]) -> Result<Reply, String> {
    let mut upper = [0; NAME_MAX];
    match arguments.first().map(|sub| uppercase(sub, &mut upper)) {
        None | Some(b"DOCS" | b"INFO" | b"LIST") => Ok(Reply::Array(Vec::new())),
        Some(b"COUNT") => Ok(Reply::Integer(0)),
        Some(_) => Err(unknown_subcommand(&arguments[0], "COMMAND")),
    }
}

fn config(arguments: &[Bytes]) -> Result<Reply, String> {
    let mut upper = [0; NAME_MAX];
    match arguments.get(1).map(|sub| uppercase(sub, &mut upper)) {
        Some(b"GET") if arguments.len() >= 3 => {
            let mut pairs = Vec::new();
            for name in &arguments[2..] {
                let mut upper = [0; NAME_MAX];
                match uppercase(name, &mut upper) {
                    b"SAVE" => pairs.extend([Reply::text("save"), Reply::text("")]),
                    // Every acknowledged write is on the disks of an accept quorum.
                    b"APPENDONLY" => pairs.extend([Reply::text("appendonly"), Reply::text("yes")]),
                    _ => {}
                }
            }
            Ok(Reply::Array(pairs))
        }
        None | Some(b"GET") => Err(wrong_number(b"CONFIG")),
        Some(_) => Err(unknown_subcommand(&arguments[1], "CONFIG")),
    }
}

fn client(arguments: &[Bytes]) -> Result<Reply, String> {
    let mut upper = [0; NAME_MAX];
    match arguments.get(1).map(|sub| uppercase(sub, &mut upper)) {
        Some(b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH") => Ok(Reply::Simple("OK")),
        Some(b"GETNAME") => Ok(Reply::Nil),
        None => Err(wrong_number(b"CLIENT")),
        Some(_) => Err(unknown_subcommand(&arguments[1], "CLIENT")),
    }
}

fn info_section(arguments: &[Bytes]) -> InfoSection {
    let mut upper = [0; NAME_MAX];
    match arguments {
        [one] => match uppercase(one, &mut upper) {
            b"ALL" | b"DEFAULT" | b"EVERYTHING" => InfoSection::All,
            b"SERVER" => InfoSection::Server,
            b"CLIENTS" => InfoSection::Clients,
            b"MEMORY" => InfoSection::Memory,
            b"STATS" => InfoSection::Stats,
            b"PAXOS" => InfoSection::Paxos,
            b"SNAPSHOTS" => InfoSection::Snapshots,
            b"KEYSPACE" => InfoSection::Keyspace,
            _ => InfoSection::Unknown,
        },
        // Of several sections, all are given: whoever asks finds what was asked for.
        _ => InfoSection::All,
    }
}

pub(crate) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// The reply to an operation that changed nothing.
pub(crate) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::NotAnInteger => NOT_AN_INTEGER.into(),
        Refusal::Overflow => "ERR increment or decrement would overflow".into(),
        Refusal::ValueTooLarge => format!(
            "TOOLARGE a value has at most {VALUE_BYTES_MAX} bytes, this one would have more; \
             nothing was done"
        ),
        Refusal::ReplyTooLarge => format!(
            "TOOLARGE the values are more than the {} bytes of one reply: ask for fewer keys",
            crate::limits::REPLY_BYTES_MAX
        ),
    }
}

fn wrong_number_unless(right: bool, name: &[u8]) -> Result<(), String> {
    if right { Ok(()) } else { Err(wrong_number(name)) }
}

fn wrong_number(name: &[u8]) -> String {
    format!(
        "ERR wrong number of arguments for '{}' command",
        name.to_ascii_lowercase().escape_ascii()
    )
}

fn unknown(arguments: &[Bytes]) -> String {
    let mut text =
        format!("ERR unknown command '{}', with args beginning with: ", shown(&arguments[0]));
    for argument in arguments[1..].iter().take(3) {
        text.push('\'');
        text.push_str(&shown(argument));
        text.push_str("' ");
    }
    text
}

fn unknown_subcommand(sub: &[u8], of: &str) -> String {
    format!("ERR unknown subcommand '{}'. {of} has few of them here.", shown(sub))
}

/// An argument as an error may show it: short, and printable.
fn shown(argument: &[u8]) -> String {
    argument[..argument.len().min(64)].escape_ascii().to_string()
}

/// The name in capitals; one that is too long to be any comes out empty.
fn uppercase<'room>(name: &[u8], room: &'room mut [u8; NAME_MAX]) -> &'room [u8] {
    let Some(upper) = room.get_mut(..name.len()) else {
        return &[];
    };
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    upper
}
