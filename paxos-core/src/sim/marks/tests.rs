use std::collections::BTreeSet;

use super::{Mark, Marks};

#[test]
fn a_mark_that_was_met_is_not_missing_and_counts_add_up() {
    let mut marks = Marks::default();
    assert_eq!(marks.missing().count(), Mark::ALL.len());
    marks.meet(Mark::TwoLeaders);
    marks.meet_often(Mark::StaleLife, 3);
    let other = marks.clone();
    marks.add(&other);
    assert_eq!((marks.count(Mark::TwoLeaders), marks.count(Mark::StaleLife)), (2, 6));
    assert_eq!(marks.missing().count(), Mark::ALL.len() - 2);
    assert!(marks.missing().all(|mark| mark != Mark::TwoLeaders));
    assert!(marks.to_string().contains("two leaders at once"));
}

#[test]
fn every_mark_has_words_of_its_own_and_its_place() {
    let words: BTreeSet<&str> = Mark::ALL.iter().map(|mark| mark.words()).collect();
    assert_eq!(words.len(), Mark::ALL.len());
    assert!(Mark::ALL.iter().enumerate().all(|(place, mark)| *mark as usize == place));
}
