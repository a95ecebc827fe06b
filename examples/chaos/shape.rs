//! The shapes of partitions.
//!
//! Owns: which directed links of a cluster a shape cuts. Knows no sockets.
//! Source: the partial partitions of the literature: one replica alone, halves, a bridge between
//! halves, a hub that alone reaches everybody (quorum loss), a chain, and links that are dead one way.

use crate::rng::Rng;

/// A directed link, by the places of its ends.
pub(crate) type Way = (usize, usize);

/// What a partition looks like.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Shape {
    /// One replica reaches nobody, and nobody reaches it.
    Isolate,
    /// Two groups that do not reach each other.
    Split,
    /// Two groups, and one replica that reaches both.
    Bridge,
    /// Everybody reaches one hub and nobody else; the focus is not the hub.
    QuorumLoss,
    /// Each reaches its neighbours in a row.
    Chain,
    /// Some links are dead in one direction.
    OneWay,
}

/// The links that a shape cuts among `nodes` replicas. `focus` is the one that it is about.
pub(crate) fn cuts(shape: Shape, nodes: usize, focus: usize, rng: &mut Rng) -> Vec<Way> {
    let others: Vec<usize> = (0..nodes).filter(|&node| node != focus).collect();
    let row = rng.shuffled(&others);
    match shape {
        Shape::Isolate => cut_where(nodes, |from, to| from == focus || to == focus),
        Shape::Split => {
            // The focus is in the smaller part.
            let size = 1 + rng.below(((nodes - 1) / 2).max(1) as u64) as usize;
            let mut part = vec![focus];
            part.extend(&row[..size - 1]);
            cut_where(nodes, |from, to| part.contains(&from) != part.contains(&to))
        }
        Shape::Bridge => {
            let bridge = row[0];
            let mut part = vec![focus];
            part.extend(&row[1..nodes / 2]);
            cut_where(nodes, |from, to| {
                let between = part.contains(&from) != part.contains(&to);
                between && from != bridge && to != bridge
            })
        }
        Shape::QuorumLoss => {
            let hub = row[0];
            cut_where(nodes, |from, to| from != hub && to != hub)
        }
        Shape::Chain => {
            let mut chain = row;
            chain.insert(rng.below(nodes as u64) as usize, focus);
            let place = |node| chain.iter().position(|&other| other == node).unwrap_or_default();
            cut_where(nodes, |from, to| place(from).abs_diff(place(to)) > 1)
        }
        Shape::OneWay => match rng.below(4) {
            // Nobody hears it.
            0 => cut_where(nodes, |from, _| from == focus),
            // It hears nobody.
            1 => cut_where(nodes, |_, to| to == focus),
            // A single link.
            2 => vec![if rng.permille(500) { (focus, row[0]) } else { (row[0], focus) }],
            // Any of them, each link at most in one direction.
            _ => {
                let mut cuts = Vec::new();
                for low in 0..nodes {
                    for high in low + 1..nodes {
                        match rng.below(3) {
                            0 => cuts.push((low, high)),
                            1 => cuts.push((high, low)),
                            _ => {}
                        }
                    }
                }
                cuts
            }
        },
    }
}

fn cut_where(nodes: usize, dead: impl Fn(usize, usize) -> bool) -> Vec<Way> {
    let ways = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
    ways.filter(|&(from, to)| from != to && dead(from, to)).collect()
}
