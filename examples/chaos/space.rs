//! Network namespaces, one for each replica, and the packet filter in them.
//!
//! Owns: their names, addresses and rules. Needs root. Everything is announced to the guard before
//! it is made.
//! Invariants: a namespace reaches this program's side of its own pair of interfaces and nothing
//! else, so that peers meet through the router alone; the filter touches UDP alone, so that clients
//! always reach their replica.

use std::net::{IpAddr, Ipv4Addr};

use crate::ability::must;
use crate::guard::{DIR_PREFIX, Guard, Remains};

/// A program that sets rules of the packet filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Filter {
    Nft,
    Iptables,
}

/// The namespace of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) name: String,
    /// The address on this program's side.
    pub(crate) outside: IpAddr,
    /// The address of the replica.
    pub(crate) inside: IpAddr,
}

/// Makes the namespace of the replica at this place.
pub(crate) fn make(place: usize, guard: &Guard) -> Result<Space, String> {
    let id = std::process::id();
    let name = format!("{DIR_PREFIX}{id}-{place}");
    // A range that is set aside for tests of networks; each pair of interfaces has four addresses.
    let (third, fourth) = ((id % 250) as u8, 4 * place as u8);
    let outside = Ipv4Addr::new(198, 18, third, fourth + 1);
    let inside = Ipv4Addr::new(198, 18, third, fourth + 2);
    let (here, there) = (format!("pc{id}h{place}"), format!("pc{id}n{place}"));
    guard.announce(&Remains::Namespace(name.clone()))?;
    must("ip", &["netns", "add", &name])?;
    let pair = ["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name];
    must("ip", &pair)?;
    must("ip", &["address", "add", &format!("{outside}/30"), "dev", &here])?;
    must("ip", &["link", "set", &here, "up"])?;
    must("ip", &["-n", &name, "address", "add", &format!("{inside}/30"), "dev", &there])?;
    must("ip", &["-n", &name, "link", "set", &there, "up"])?;
    must("ip", &["-n", &name, "link", "set", "lo", "up"])?;
    Ok(Space { name, outside: outside.into(), inside: inside.into() })
}

/// Makes the chain that rules are put in.
pub(crate) fn prepare_filter(filter: Filter, name: &str) -> Result<(), String> {
    match filter {
        Filter::Nft => {
            within(name, &["nft", "add", "table", "inet", "chaos"])?;
            let hook = "{ type filter hook output priority 0 ; }";
            within(name, &["nft", "add", "chain", "inet", "chaos", "out", hook])?;
        }
        Filter::Iptables => {}
    }
    // A trial of both kinds of rules.
    drop_packets(filter, name, &[9], 500)?;
    drop_packets(filter, name, &[9, 10], 1000)?;
    clear(filter, name).map(drop)
}

/// Drops UDP packets that leave for one of these ports, so many in a thousand.
pub(crate) fn drop_packets(
    filter: Filter,
    name: &str,
    ports: &[u16],
    permille: u64,
) -> Result<(), String> {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    // A chance of one is no chance: the tools refuse it.
    let always = permille >= 1000;
    match filter {
        Filter::Nft => {
            let (set, chance) = (format!("{{ {ports} }}"), permille.to_string());
            let rule = ["nft", "add", "rule", "inet", "chaos", "out", "udp", "dport", &set];
            let random = ["numgen", "random", "mod", "1000", "<", &chance];
            let random = if always { &[][..] } else { &random };
            within(name, &[&rule[..], random, &["counter", "drop"]].concat())?;
        }
        Filter::Iptables => {
            let chance = format!("0.{permille:03}");
            let rule = ["iptables", "-A", "OUTPUT", "-p", "udp", "-m", "multiport", "--dports"];
            let random = ["-m", "statistic", "--mode", "random", "--probability", &chance];
            let random = if always { &[][..] } else { &random };
            within(name, &[&rule[..], &[&ports], random, &["-j", "DROP"]].concat())?;
        }
    }
    Ok(())
}

/// Takes all rules away; returns how many packets they dropped.
pub(crate) fn clear(filter: Filter, name: &str) -> Result<u64, String> {
    match filter {
        Filter::Nft => {
            let text = within(name, &["nft", "list", "chain", "inet", "chaos", "out"])?;
            within(name, &["nft", "flush", "chain", "inet", "chaos", "out"])?;
            let after_counter = text.split("counter packets ").skip(1);
            Ok(after_counter.filter_map(first_number).sum())
        }
        Filter::Iptables => {
            let text = within(name, &["iptables", "-L", "OUTPUT", "-v", "-x", "-n"])?;
            within(name, &["iptables", "-F", "OUTPUT"])?;
            Ok(text.lines().filter(|line| line.contains("DROP")).filter_map(first_number).sum())
        }
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn within(name: &str, command: &[&str]) -> Result<String, String> {
    must("ip", &[&["netns", "exec", name][..], command].concat())
}
