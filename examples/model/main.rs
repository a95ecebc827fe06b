//! Exhaustive small worlds: every order of events that a few replicas can see, under the real code.
//!
//!     cargo run --release --example model -- --world s

mod check;
mod disk;
mod marks;
mod node;
mod observe;
mod table;
mod world;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stateright::{Checker, Model};
use world::{Scope, Worlds};

fn arg(name: &str) -> Option<String> {
    let mut a = std::env::args();
    a.find(|x| x == name)?;
    a.next()
}
fn num(name: &str, d: u64) -> u64 { arg(name).map_or(d, |x| x.parse().unwrap()) }

fn main() {
    let c = arg("--c").unwrap_or("2,2,0".into());
    let c: Vec<u8> = c.split(',').map(|x| x.parse().unwrap()).collect();
    let scope = Scope {
        campaigns: [c[0], c[1], c[2]],
        campaigns_all: num("--call", 2) as u8,
        crashes: num("--crashes", 1) as u8,
        slots: num("--slots", 1) as u8,
        requests: num("--requests", 1) as u8, eager: num("--eager", 1) > 0, lost: Box::leak(arg("--lost").unwrap_or_default().split(',').map(|x| &*Box::leak(x.to_string().into_boxed_str())).collect::<Vec<&'static str>>().into_boxed_slice()), moments: [num("--moments", 0) & 1 > 0, num("--moments", 0) & 2 > 0, num("--moments", 0) & 4 > 0],
    };
    std::panic::set_hook(Box::new(|_| {}));
    let max = num("--states-max", 5_000_000) as usize;
    let start = Instant::now();
    let checker = Worlds::new(scope).checker().threads(num("--threads", 2) as usize).spawn_dfs();
    let mut last = Instant::now();
    while !checker.is_done() {
        std::thread::sleep(Duration::from_millis(50));
        if last.elapsed() > Duration::from_secs(5) {
            last = Instant::now();
            eprintln!("{:?} unique {} gen {} depth {} sizes {:?}", start.elapsed(), checker.unique_state_count(), checker.state_count(), checker.max_depth(), checker.model().table.sizes());
        }
        if checker.unique_state_count() > max { checker.model().enough.store(true, Ordering::Relaxed); }
    }
    eprintln!("{:?} unique {} gen {} depth {} sizes {:?}", start.elapsed(), checker.unique_state_count(), checker.state_count(), checker.max_depth(), checker.model().table.sizes());
    let m = checker.model();
    dump(m);
    let marks = m.marks();
    for (mark, text) in marks::Mark::ALL { println!("{} {text}", if marks.contains(mark) {"x"} else {"-"}); }
    if let Some(path) = checker.discovery("no fault") {
        println!("fault: {:?}", m.fault_text(path.last_state()));
        for s in path.into_actions() { println!("  {}", m.describe(s)); }
    }
    println!("twins {:?} {:?}", m.table.check_twins(), start.elapsed());
}
pub fn dump(m: &Worlds) {
    let which = num("--dump", 0) as u16;
    if which == 0 { return; }
    let (n, _, _) = m.table.sizes();
    for i in 0..n { let node = m.table.node_at(i); if node.id().number() == which { println!("{}", node.brief()); } }
}
