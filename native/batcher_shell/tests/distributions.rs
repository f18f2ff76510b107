//! How values are distributed, and what is told of that.

use batcher_shell::{Distribution, Summary};

const BOUNDS: &[u64] = &[10, 100, 1_000];

fn of(values: &[(u64, u64)]) -> Summary {
    let mut distribution = Distribution::default();
    values.iter().for_each(|&(value, times)| distribution.record(value, times));
    distribution.summary(BOUNDS)
}

#[test]
fn nothing_recorded_is_nothing_told() {
    let buckets = vec![(10, 0), (100, 0), (1_000, 0)];
    assert_eq!(of(&[]), Summary { buckets, ..Summary::default() });
}

#[test]
fn sum_least_and_greatest_are_exact() {
    let told = of(&[(123_456, 1), (3, 2), (0, 1)]);
    assert_eq!((told.count, told.sum, told.min, told.max), (4, 123_462, 0, 123_456));
}

#[test]
fn quantiles_are_off_by_a_hundredth_at_most() {
    let values: Vec<_> = (1..=100_000).map(|value| (value, 1)).collect();
    let told = of(&values);
    for (quantile, exact) in told.quantiles.into_iter().zip([50_000, 90_000, 99_000, 99_900]) {
        assert!(quantile.abs_diff(exact) <= exact / 100, "{quantile} for {exact}");
    }
}

#[test]
fn no_quantile_is_beyond_what_was_recorded() {
    let told = of(&[(1_000_003, 5)]);
    assert_eq!(told.quantiles, [1_000_003; 4]);
}

#[test]
fn buckets_count_all_up_to_their_bounds() {
    let told = of(&[(0, 1), (10, 1), (11, 1), (100, 2), (1_000, 3), (1_001_000, 4)]);
    assert_eq!(told.buckets, [(10, 2), (100, 5), (1_000, 8)]);
    assert_eq!(told.count, 12);
}

#[test]
fn what_is_too_much_stays_as_it_is() {
    let told = of(&[(u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX), (1, 7)]);
    assert_eq!((told.count, told.sum, told.max), (u64::MAX, u64::MAX, u64::MAX));
    assert_eq!(told.buckets, [(10, u64::MAX), (100, u64::MAX), (1_000, u64::MAX)]);
}
