//! What the state of one segment means at recovery: the whole table, as one function.
//!
//! Owns: [`judge`] and the three questions it is asked with. Knows no bytes; `replay` answers the
//! questions.
//! Invariants: every combination of answers has exactly one verdict, and none that could hide
//! something acknowledged is read as the end of the log.
//! Source: docs/format.md draws the table; that it be exhaustive is `TigerBeetle`'s idea.

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// With a seal: the writer went on to the next segment.
    Sealed,
    /// With bytes that are not the next record, with the end of the file, or where a successor
    /// says that it took over.
    Open,
}

/// What the header of the next segment says about the end of this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Successor {
    /// There is no next segment.
    None,
    /// It follows a sealed segment, and names this end.
    Follows,
    /// A recovery took over there from an unfinished segment, and names this end.
    TakesOver,
    /// It names another end, or its place in the order is wrong.
    Disagrees,
}

/// Whether everything is there of which a record or a header says that it was synced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Vouched {
    /// All of it was read.
    Present,
    /// Some of it was not.
    Missing,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Go on with the next segment.
    Continue,
    /// The log ends here. What follows, if anything, was never acknowledged.
    End,
    /// Something acknowledged may be lost. The replica must not vote.
    Corrupt(&'static str),
}

/// The recovery table.
pub(crate) const fn judge(ending: Ending, successor: Successor, vouched: Vouched) -> Verdict {
    match (ending, successor, vouched) {
        (_, _, Vouched::Missing) => {
            Verdict::Corrupt("a later record says that the missing one was synced")
        }
        (_, Successor::Disagrees, Vouched::Present) => {
            Verdict::Corrupt("the next segment names another end of this one")
        }
        (Ending::Open, Successor::Follows, Vouched::Present) => {
            Verdict::Corrupt("the segment has a successor and no seal")
        }
        (Ending::Sealed, Successor::Follows, Vouched::Present)
        | (_, Successor::TakesOver, Vouched::Present) => Verdict::Continue,
        (_, Successor::None, Vouched::Present) => Verdict::End,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Successor, Verdict, Vouched, judge};

    /// Each of the 16 combinations, written down one by one, has the verdict expected of it.
    #[test]
    fn every_combination_has_its_verdict() {
        use {Ending as E, Successor as S, Vouched as V};
        let table = [
            (E::Sealed, S::None, V::Present, "end"),
            (E::Sealed, S::None, V::Missing, "corrupt"),
            (E::Sealed, S::Follows, V::Present, "continue"),
            (E::Sealed, S::Follows, V::Missing, "corrupt"),
            (E::Sealed, S::TakesOver, V::Present, "continue"),
            (E::Sealed, S::TakesOver, V::Missing, "corrupt"),
            (E::Sealed, S::Disagrees, V::Present, "corrupt"),
            (E::Sealed, S::Disagrees, V::Missing, "corrupt"),
            (E::Open, S::None, V::Present, "end"),
            (E::Open, S::None, V::Missing, "corrupt"),
            (E::Open, S::Follows, V::Present, "corrupt"),
            (E::Open, S::Follows, V::Missing, "corrupt"),
            (E::Open, S::TakesOver, V::Present, "continue"),
            (E::Open, S::TakesOver, V::Missing, "corrupt"),
            (E::Open, S::Disagrees, V::Present, "corrupt"),
            (E::Open, S::Disagrees, V::Missing, "corrupt"),
        ];
        let mut seen = Vec::new();
        for ending in [E::Sealed, E::Open] {
            for successor in [S::None, S::Follows, S::TakesOver, S::Disagrees] {
                for vouched in [V::Present, V::Missing] {
                    let found = match judge(ending, successor, vouched) {
                        Verdict::Continue => "continue",
                        Verdict::End => "end",
                        Verdict::Corrupt(_) => "corrupt",
                    };
                    seen.push((ending, successor, vouched, found));
                }
            }
        }
        assert_eq!(seen, table);
    }
}
