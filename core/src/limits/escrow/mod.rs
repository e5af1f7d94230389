//! Models of several replicas that lease from one row and spend, on the real rules of this module. Each rule is
//! also removed once: the search must then find an excess.

mod credit_replica;
mod credit_world;
mod credits;
mod rate;
mod rate_replica;

/// A source of numbers that is the same in each run (`SplitMix64`); fast, since the search runs many cases.
struct Random(u64);

impl Random {
    /// Returns a number of the range.
    fn within(&mut self, range: std::ops::Range<i64>) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = i64::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap();
        range.start + number % (range.end - range.start)
    }
}

/// Returns the first of the cases that fails.
fn first_failure(cases: u64, holds: impl Fn(&mut Random) -> bool) -> Option<u64> {
    (0..cases).find(|case| !holds(&mut Random(*case)))
}

/// Returns the rules without which no case fails.
fn needless<R: Copy>(rules: &[R], cases: u64, holds: impl Fn(Option<R>, &mut Random) -> bool) -> Vec<R> {
    let holds_without = |rule: &R| first_failure(cases, |random| holds(Some(*rule), random)).is_none();
    rules.iter().copied().filter(holds_without).collect()
}
