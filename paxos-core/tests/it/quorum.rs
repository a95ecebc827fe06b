//! Quorum arithmetic, exhaustively: every prepare quorum meets every accept quorum.

use paxos_core::quorum::{
    Phase, QUORUM_SETS_MAX, QuorumError, QuorumRule, QuorumSystem, Tolerance, VOTERS_MAX, VoterSet,
};
use paxos_core::sim::Rng;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, proptest};
use proptest::prop_assert;

fn set(bits: u32) -> VoterSet {
    let mut set = VoterSet::EMPTY;
    for voter in (0..VOTERS_MAX).filter(|voter| bits & (1 << voter) != 0) {
        assert!(set.insert(voter), "each voter is inserted once");
    }
    set
}

fn quorums(voters: usize, is_quorum: impl Fn(VoterSet) -> bool) -> Vec<u32> {
    (0..1_u32 << voters).filter(|bits| is_quorum(set(*bits))).collect()
}

/// Compares every prepare quorum with every accept quorum.
fn assert_all_pairs_intersect(system: &QuorumSystem) {
    let prepare = quorums(system.voters(), |set| system.is_prepare_quorum(set));
    let accept = quorums(system.voters(), |set| system.is_accept_quorum(set));
    assert!(!prepare.is_empty(), "all voters are a prepare quorum");
    assert!(!accept.is_empty(), "all voters are an accept quorum");
    for first in &prepare {
        for second in &accept {
            assert_ne!(first & second, 0, "{system:?}: {first:b} and {second:b} are disjoint");
        }
    }
}

/// n10: published teaching code found the committed index at `sorted[n / 2]`, which is a minority
/// for every even n; and a value acknowledged by half of the voters was lost.
/// Source: the replicated-log chapter's own formula, checked for n = 2, 4, 6, 8.
#[test]
fn n10_half_of_an_even_cluster_is_no_quorum() {
    for voters in 1..=VOTERS_MAX {
        let system = QuorumSystem::new(voters, QuorumRule::Majority).unwrap();
        let enough = voters / 2 + 1;
        for count in 0..=voters {
            let set = VoterSet::first(count);
            assert_eq!(system.is_prepare_quorum(set), count >= enough, "{count} of {voters}");
            assert_eq!(system.is_accept_quorum(set), count >= enough, "{count} of {voters}");
        }
    }
}

#[test]
fn majorities_intersect_for_one_to_nine_voters() {
    for voters in 1..=9 {
        let system = QuorumSystem::new(voters, QuorumRule::Majority).unwrap();
        assert_all_pairs_intersect(&system);
    }
}

/// What the rule says of a set, read as plainly as its documentation.
fn suffices(voters: usize, rule: &QuorumRule, phase: Phase, set: u32) -> bool {
    let pick = |prepare: u64, accept: u64| if phase == Phase::Prepare { prepare } else { accept };
    let size = u64::from(set.count_ones());
    match rule {
        QuorumRule::Majority => 2 * size > voters as u64,
        QuorumRule::Counts { prepare, accept } => {
            size >= pick(u64::from(*prepare), u64::from(*accept))
        }
        QuorumRule::Weights { weights, prepare, accept } => {
            let each = weights.iter().enumerate();
            let weight: u64 =
                each.map(|(at, weight)| u64::from(*weight) * u64::from(set >> at & 1)).sum();
            weight >= pick(u64::from(*prepare), u64::from(*accept))
        }
        QuorumRule::Sets { prepare, accept } => {
            let sets = if phase == Phase::Prepare { prepare } else { accept };
            sets.iter().any(|quorum| quorum.iter().all(|voter| set >> voter & 1 == 1))
        }
    }
}

fn bits(set: VoterSet) -> u32 {
    set.iter().map(|voter| 1 << voter).sum()
}

/// A rule that can be built keeps its word on every set: each prepare quorum meets each accept
/// quorum, more voters never make less, and what it says to survive it survives, and no more. One
/// that cannot be built was refused with a witness. Says whether it was built.
fn judge(voters: usize, rule: &QuorumRule) -> bool {
    let all = (1_u32 << voters) - 1;
    let system = match QuorumSystem::new(voters, rule.clone()) {
        Ok(system) => system,
        Err(error) => {
            assert!(is_witnessed(voters, rule, error), "{rule:?} of {voters}: {error:?}");
            return false;
        }
    };
    let mut fewest = [voters + 1; 2];
    for some in 0..=all {
        let (prepare, accept) =
            (system.is_prepare_quorum(set(some)), system.is_accept_quorum(set(some)));
        assert_eq!(prepare, suffices(voters, rule, Phase::Prepare, some), "{rule:?} {some:b}");
        assert_eq!(accept, suffices(voters, rule, Phase::Accept, some), "{rule:?} {some:b}");
        let rest = set(all & !some);
        assert!(!(prepare && system.is_accept_quorum(rest)), "{rule:?}: {some:b} and its rest");
        for voter in 0..voters {
            let more = set(some | 1 << voter);
            assert!(!prepare || system.is_prepare_quorum(more), "{rule:?} {some:b} and {voter}");
            assert!(!accept || system.is_accept_quorum(more), "{rule:?} {some:b} and {voter}");
        }
        for (at, left) in
            [system.is_prepare_quorum(rest), system.is_accept_quorum(rest)].into_iter().enumerate()
        {
            if !left {
                fewest[at] = fewest[at].min(some.count_ones() as usize);
            }
        }
    }
    assert!(system.is_prepare_quorum(set(all)) && system.is_accept_quorum(set(all)), "{rule:?}");
    let tolerance = Tolerance { prepare: fewest[0] - 1, accept: fewest[1] - 1 };
    assert_eq!(system.tolerates(), tolerance, "{rule:?} of {voters}");
    true
}

/// Whether what the refusal says is so.
fn is_witnessed(voters: usize, rule: &QuorumRule, error: QuorumError) -> bool {
    let all = (1_u32 << voters) - 1;
    let sets = |phase| match rule {
        QuorumRule::Sets { prepare, accept } => {
            if phase == Phase::Prepare {
                prepare.as_slice()
            } else {
                accept
            }
        }
        QuorumRule::Majority | QuorumRule::Counts { .. } | QuorumRule::Weights { .. } => &[],
    };
    match error {
        QuorumError::Apart { prepare, accept } => {
            let (prepare, accept) = (bits(prepare), bits(accept));
            prepare & accept == 0
                && (prepare | accept) & !all == 0
                && suffices(voters, rule, Phase::Prepare, prepare)
                && suffices(voters, rule, Phase::Accept, accept)
        }
        QuorumError::Nobody(phase) => suffices(voters, rule, phase, 0),
        QuorumError::Unreachable { phase, needs, total } => {
            needs > total && !suffices(voters, rule, phase, all)
        }
        QuorumError::NoSets(phase) => sets(phase).is_empty(),
        QuorumError::TooManySets { phase, sets: given } => {
            given == sets(phase).len() && given > QUORUM_SETS_MAX
        }
        QuorumError::Stranger { phase, voter, .. } => {
            voter >= voters && sets(phase).iter().any(|set| set.contains(voter))
        }
        QuorumError::Redundant { phase, smaller, larger } => {
            let given = |wanted| sets(phase).iter().filter(|set| **set == wanted).count();
            let twice = smaller == larger && given(smaller) > 1;
            larger.contains_all(smaller) && given(larger) > 0 && (twice || given(smaller) > 0)
        }
        QuorumError::Idle(voter) => {
            let both = [Phase::Prepare, Phase::Accept];
            voter < voters && both.iter().all(|of| !sets(*of).iter().any(|s| s.contains(voter)))
        }
        // No answer to a rule of a number of voters that there can be.
        QuorumError::VoterCount(_) | QuorumError::WeightCount { .. } | QuorumError::Grid { .. } => {
            false
        }
        _ => panic!("{error:?} is not known to this test"),
    }
}

#[test]
fn counts_intersect_for_one_to_nine_voters_or_cannot_be_built() {
    for voters in 1..=9_u16 {
        for prepare in 0..=voters + 1 {
            for accept in 0..=voters + 1 {
                let rule = QuorumRule::Counts { prepare, accept };
                let both = (1..=voters).contains(&prepare) && (1..=voters).contains(&accept);
                let built = judge(usize::from(voters), &rule);
                assert_eq!(built, both && prepare + accept > voters, "{rule:?} of {voters}");
            }
        }
    }
}

/// Weights up to `most` in rising order: what another order would show is the same.
fn rising_weights(voters: usize, most: u16) -> Vec<Vec<u16>> {
    (0..voters).fold(vec![Vec::new()], |all, _| {
        let longer = |weights: Vec<u16>| {
            (weights.last().copied().unwrap_or(0)..=most)
                .map(move |next| [weights.clone(), vec![next]].concat())
        };
        all.into_iter().flat_map(longer).collect()
    })
}

/// Every threshold for every choice of small weights. Those that do not add up to more than all can
/// be built only where no sum falls between.
#[test]
fn weights_intersect_for_one_to_nine_voters_or_cannot_be_built() {
    let (mut built, mut refused, mut lucky) = (0, 0, 0);
    for (voters, most) in (1..=9).zip([3, 3, 3, 3, 3, 2, 2, 1, 1]) {
        for weights in rising_weights(voters, most) {
            let total: u32 = weights.iter().copied().map(u32::from).sum();
            for prepare in 0..=total + 1 {
                for accept in 0..=total + 1 {
                    let rule = QuorumRule::Weights { weights: weights.clone(), prepare, accept };
                    if judge(voters, &rule) {
                        built += 1;
                        lucky += u32::from(prepare + accept <= total);
                    } else {
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(built > 5000 && refused > 5000 && lucky > 100, "{built} {refused} {lucky}");
}

/// Every pair of families of sets of up to three voters, redundant ones included; of four, every
/// pair of families of which no set contains another.
#[test]
fn sets_intersect_for_one_to_four_voters_or_cannot_be_built() {
    let mut all_built = Vec::new();
    for voters in 1..=4_usize {
        let mut built = 0;
        let sets: Vec<u32> = (1..1 << voters).collect();
        let smallest = |family: &Vec<VoterSet>| {
            let among =
                |one: &VoterSet| family.iter().filter(|set| one.contains_all(**set)).count();
            voters < 4 || family.iter().all(|one| among(one) == 1)
        };
        let of = |chosen: u32| -> Vec<VoterSet> {
            let member = |at: &usize| chosen >> at & 1 == 1;
            (0..sets.len()).filter(member).map(|at| set(sets[at])).collect()
        };
        let families: Vec<Vec<VoterSet>> =
            (0..1_u32 << sets.len()).map(of).filter(smallest).collect();
        for prepare in &families {
            for accept in &families {
                let (prepare, accept) = (prepare.clone(), accept.clone());
                built += u32::from(judge(voters, &QuorumRule::Sets { prepare, accept }));
            }
        }
        all_built.push(built);
    }
    // A single voter has one system. For two: {0,1} with {0,1}, with {0} or {1} or both of them, and
    // the other way round.
    assert_eq!(all_built[..2], [1, 7]);
    assert!(all_built[2] > 30 && all_built[3] > 1000, "{all_built:?}");
}

/// Families of five to seven voters: drawn ones, and what meets each set of a drawn one.
#[test]
fn sets_intersect_for_five_to_seven_voters_or_cannot_be_built() {
    let mut rng = Rng::new(7);
    let (mut built, mut refused) = (0, 0);
    for _ in 0..600 {
        let voters = rng.between(5, 7) as usize;
        let all = (1_u32 << voters) - 1;
        let draw = |rng: &mut Rng| (rng.bits() as u32 & all).max(1);
        let first: Vec<u32> = (0..rng.between(1, 5)).map(|_| draw(&mut rng)).collect();
        let second: Vec<u32> = (0..rng.between(1, 5)).map(|_| draw(&mut rng)).collect();
        let meeting: Vec<u32> =
            (1..=all).filter(|set| first.iter().all(|other| set & other != 0)).collect();
        let smallest = |sets: &[u32]| -> Vec<VoterSet> {
            let contains_another =
                |one: u32| sets.iter().any(|other| *other != one && other & !one == 0);
            let mut kept: Vec<u32> =
                sets.iter().copied().filter(|one| !contains_another(*one)).collect();
            kept.sort_unstable();
            kept.dedup();
            kept.into_iter().map(set).collect()
        };
        for (prepare, accept) in [
            (smallest(&first), smallest(&second)),
            (first.iter().copied().map(set).collect(), smallest(&meeting)),
            (smallest(&meeting), smallest(&first)),
        ] {
            if judge(voters, &QuorumRule::Sets { prepare, accept }) {
                built += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(built > 300 && refused > 300, "{built} {refused}");
}

/// A grid's quorums are its full rows and columns: a row with a hole is none, however many voters
/// stand beside it.
#[test]
fn grids_need_a_full_row_and_a_full_column() {
    for rows in 1..=7_usize {
        for columns in 1..=7 / rows {
            let (voters, rule) = (rows * columns, QuorumRule::grid(rows, columns).unwrap());
            assert!(judge(voters, &rule), "{rows} × {columns}");
            let system = QuorumSystem::new(voters, rule).unwrap();
            assert_eq!(system.tolerates(), Tolerance { prepare: rows - 1, accept: columns - 1 });
            let holes = VoterSet::first(voters);
            let diagonal = (0..rows).map(|row| row * columns + row % columns).collect();
            assert!(!system.is_prepare_quorum(holes.without(diagonal)), "a hole in each row");
            let diagonal = (0..columns).map(|column| (column % rows) * columns + column).collect();
            assert!(!system.is_accept_quorum(holes.without(diagonal)), "a hole in each column");
        }
    }
    for (rows, columns) in [(0, 3), (3, 0), (4, 8), (usize::MAX, 2)] {
        assert_eq!(
            QuorumRule::grid(rows, columns),
            Err(QuorumError::Grid { rows, columns }),
            "{rows} × {columns}"
        );
    }
    assert!(QuorumRule::grid(1, VOTERS_MAX).is_ok());
    // Neither fewer nor more voters than places.
    let grid = QuorumRule::grid(2, 3).unwrap();
    assert_eq!(
        QuorumSystem::new(5, grid.clone()),
        Err(QuorumError::Stranger { phase: Phase::Prepare, voter: 5, voters: 5 })
    );
    assert_eq!(QuorumSystem::new(7, grid), Err(QuorumError::Idle(6)));
}

#[test]
fn explicit_sets_are_bounded() {
    let of_nine: Vec<VoterSet> =
        (0..1_u32 << 9).filter(|bits| bits.count_ones() == 5).map(set).collect();
    assert_eq!(of_nine.len(), 126, "all majorities of nine fit");
    let rule = QuorumRule::Sets { prepare: of_nine.clone(), accept: of_nine };
    assert_eq!(
        QuorumSystem::new(9, rule).unwrap().tolerates(),
        Tolerance { prepare: 4, accept: 4 }
    );
    let of_ten: Vec<VoterSet> =
        (0..1_u32 << 10).filter(|bits| bits.count_ones() == 6).map(set).collect();
    let rule = QuorumRule::Sets { prepare: vec![VoterSet::first(10)], accept: of_ten.clone() };
    assert_eq!(
        QuorumSystem::new(10, rule),
        Err(QuorumError::TooManySets { phase: Phase::Accept, sets: of_ten.len() })
    );
}

/// The order in which sets are written says nothing.
#[test]
fn equal_systems_are_equal_values() {
    let sets = |order: [u32; 2]| QuorumRule::Sets {
        prepare: order.map(set).to_vec(),
        accept: vec![set(0b01), set(0b10)],
    };
    let refused = QuorumSystem::new(2, sets([0b11, 0b11]));
    let (smaller, larger) = (set(0b11), set(0b11));
    let phase = Phase::Prepare;
    assert_eq!(refused, Err(QuorumError::Redundant { phase, smaller, larger }));
    let of = |order: [u32; 2]| QuorumRule::Sets {
        prepare: order.map(set).to_vec(),
        accept: vec![set(0b011), set(0b101)],
    };
    assert_eq!(
        QuorumSystem::new(3, of([0b001, 0b110])).unwrap(),
        QuorumSystem::new(3, of([0b110, 0b001])).unwrap()
    );
}

/// The worst that two thresholds can ask: 31 heavy voters whose sums leave no room.
#[test]
fn thresholds_that_miss_each_other_are_searched_within_bounds() {
    let weights = vec![2_000; VOTERS_MAX];
    let rule = |prepare, accept| QuorumRule::Weights { weights: weights.clone(), prepare, accept };
    // 62,000 in all: sixteen voters are 32,000, fifteen are 30,000, and 31,000 lies between.
    assert!(QuorumSystem::new(VOTERS_MAX, rule(31_000, 31_000)).is_ok());
    let Err(QuorumError::Apart { prepare, accept }) =
        QuorumSystem::new(VOTERS_MAX, rule(30_000, 31_000))
    else {
        panic!("fifteen voters and the other sixteen");
    };
    assert!(!prepare.meets(accept));
    assert_eq!((prepare.len(), accept.len()), (15, 16));
}

#[test]
fn a_refusal_says_what_to_change() {
    let words = |voters, rule| QuorumSystem::new(voters, rule).unwrap_err().to_string();
    assert_eq!(
        words(4, QuorumRule::Counts { prepare: 2, accept: 2 }),
        "the prepare quorum of voter 0 and voter 1 and the accept quorum of voter 2 and voter 3 \
         share no voter, so that a leader could miss what was chosen: make one of them larger"
    );
    assert_eq!(
        words(3, QuorumRule::Counts { prepare: 0, accept: 2 }),
        "the prepare quorum asks for nobody: it must need at least one voter"
    );
    assert_eq!(
        words(3, QuorumRule::accepting(3, 4)),
        "the prepare quorum asks for nobody: it must need at least one voter"
    );
    assert_eq!(
        words(3, QuorumRule::Weights { weights: vec![1, 1, 1], prepare: 2, accept: 4 }),
        "the accept quorum needs 4 and all voters together are 3: lower it"
    );
    assert_eq!(
        QuorumRule::grid(4, 8).unwrap_err().to_string(),
        "a grid of 4 rows and 8 columns: rows times columns must be 1 to 31, the number of voters"
    );
    let many = QuorumRule::Sets { prepare: vec![VoterSet::first(1); 129], accept: Vec::new() };
    assert_eq!(
        words(1, many),
        "129 prepare quorums are given and 128 are the most: leave out those that contain others, \
         or use counts or weights"
    );
    let none = QuorumRule::Sets { prepare: vec![VoterSet::first(1)], accept: Vec::new() };
    assert_eq!(words(1, none), "no accept quorum is given: give at least one set of voters");
}

/// The rule that the first cell of a row names.
fn named(rule: &str, voters: u16) -> QuorumRule {
    let (name, numbers) = rule.trim_end_matches(')').split_once('(').unwrap_or((rule, ""));
    let numbers: Vec<u16> = numbers.split(", ").filter_map(|number| number.parse().ok()).collect();
    match (name, numbers.as_slice()) {
        ("majority", []) => QuorumRule::Majority,
        ("accepting", [accept]) => QuorumRule::accepting(voters, *accept),
        ("grid", [rows, columns]) => {
            QuorumRule::grid(usize::from(*rows), usize::from(*columns)).unwrap()
        }
        ("weights", weights) => {
            let (prepare, accept) = if weights.len() == 3 { (3, 2) } else { (4, 4) };
            QuorumRule::Weights { weights: weights.to_vec(), prepare, accept }
        }
        _ => panic!("{rule} is a rule"),
    }
}

/// What each rule loses, as the documentation of the module and docs/protocol.md say it.
#[test]
fn the_tables_of_what_a_rule_survives_are_true() {
    for (document, least) in
        [(include_str!("../../src/quorum.rs"), 15), (include_str!("../../../docs/protocol.md"), 6)]
    {
        let heading = "any failures that prepare survives";
        let lines = document.lines().map(|line| line.trim_start_matches("//!").trim());
        let rows: Vec<&str> = lines
            .skip_while(|line| !line.contains(heading))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert!(rows.len() >= least, "{} rows", rows.len());
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let numbers: Vec<usize> = cells[1..].iter().map(|cell| cell.parse().unwrap()).collect();
            let rule = named(cells[0], numbers[0] as u16);
            assert!(judge(numbers[0], &rule), "{row}");
            let system = QuorumSystem::new(numbers[0], rule).unwrap();
            let least = |is_quorum: &dyn Fn(VoterSet) -> bool| {
                let sizes = quorums(numbers[0], is_quorum).into_iter().map(u32::count_ones);
                sizes.min().unwrap() as usize
            };
            let Tolerance { prepare, accept } = system.tolerates();
            let smallest = [
                least(&|set| system.is_prepare_quorum(set)),
                least(&|set| system.is_accept_quorum(set)),
            ];
            assert_eq!(numbers[1..], [smallest[0], smallest[1], prepare, accept], "{row}");
        }
    }
}

proptest! {
    #[test]
    fn random_weights_intersect(
        weights in vec(any::<u16>(), 1..=10),
        prepare in any::<u32>(),
        accept in any::<u32>(),
        first in any::<u32>(),
    ) {
        let voters = weights.len();
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        let rule = QuorumRule::Weights {
            weights,
            prepare: prepare % (total + 1),
            accept: accept % (total + 1),
        };
        if let Ok(system) = QuorumSystem::new(voters, rule) {
            let all = (1_u32 << voters) - 1;
            let disjoint = system.is_prepare_quorum(set(first & all))
                && system.is_accept_quorum(set(all & !first));
            prop_assert!(!disjoint);
        }
    }

    #[test]
    fn a_set_holds_what_was_inserted(bits in any::<u32>().prop_map(|bits| bits >> 1)) {
        let set = set(bits);
        prop_assert!(set.len() == bits.count_ones() as usize);
        prop_assert!(set.iter().all(|voter| bits & (1 << voter) != 0));
        prop_assert!((0..40).all(|voter| set.contains(voter) == (voter < 31 && bits >> voter & 1 == 1)));
    }
}

#[test]
fn a_voter_is_counted_once() {
    let mut set = VoterSet::EMPTY;
    assert!(set.insert(3));
    assert!(!set.insert(3));
    assert_eq!(set.len(), 1);
}

#[test]
fn voters_are_one_to_thirty_one() {
    for voters in [0, VOTERS_MAX + 1] {
        assert_eq!(
            QuorumSystem::new(voters, QuorumRule::Majority),
            Err(QuorumError::VoterCount(voters))
        );
    }
    let system = QuorumSystem::new(VOTERS_MAX, QuorumRule::Majority).unwrap();
    assert!(system.is_accept_quorum(VoterSet::first(VOTERS_MAX)));
}

#[test]
fn the_number_of_weights_is_the_number_of_voters() {
    let rule = QuorumRule::Weights { weights: vec![1, 1], prepare: 2, accept: 2 };
    let refused = QuorumError::WeightCount { weights: 2, voters: 3 };
    assert_eq!(QuorumSystem::new(3, rule), Err(refused));
    assert_eq!(refused.to_string(), "2 weights for 3 voters: give each voter one");
}
