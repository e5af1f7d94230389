//! A chart of verifications by day, as the paths of an SVG: what is valid below, what was refused above. Pure functions,
//! used by the pages that show one.

use std::fmt::Write as _;

use time::macros::format_description;
use time::{Duration, OffsetDateTime};

use crate::domain::usage::{Step, UsagePoint, VerdictCount};
use crate::domain::{OrganizationId, OwnerKind, UserId};
use crate::secret::TokenId;
use crate::tokens::usage::{GetUsage, Usage};

/// The width of a day and the height of the highest one, in the units of the drawing.
const WIDTH: usize = 10;
const HEIGHT: u64 = 100;

/// The number of `VERDICT_VALID`.
const VALID: i16 = 1;

/// A chart, ready to be shown.
pub(in crate::api::console) struct Chart {
    /// The paths of what is valid, and of what was refused.
    pub(in crate::api::console) valid: String,
    pub(in crate::api::console) refused: String,
    /// The width of the drawing.
    pub(in crate::api::console) width: usize,
    pub(in crate::api::console) valid_count: u64,
    pub(in crate::api::console) refused_count: u64,
    /// The most verifications of a day.
    pub(in crate::api::console) highest: u64,
    /// The first and the last day.
    pub(in crate::api::console) days: (String, String),
    /// The same in numbers: each day on which there were any, what is valid, and what was refused. The newest is first.
    pub(in crate::api::console) numbers: Vec<(String, u64, u64)>,
}

/// Returns the request for the last 30 days.
pub(in crate::api::console) fn last_days(
    token_id: Option<TokenId>,
    organization_id: Option<OrganizationId>,
    (user_id, kind): (Option<UserId>, Option<OwnerKind>),
    top: u32,
) -> GetUsage {
    GetUsage { organization_id, token_id, user_id, kind, between: (None, None), step: Step::Day, top }
}

impl Chart {
    /// Draws what was counted by day.
    pub(in crate::api::console) fn new(usage: &Usage) -> Self {
        let range = usage.query.range;
        let days = usize::try_from(range.steps(Step::Day)).unwrap_or(0);
        let mut sums = vec![(0_u64, 0_u64); days];
        for UsagePoint { start: at, counts } in &usage.answer.points {
            let day = usize::try_from(range.number(*at, Step::Day)).ok();
            if let Some(sum) = day.and_then(|day| sums.get_mut(day)) {
                *sum = split(counts);
            }
        }
        let all = |(valid, refused): &(u64, u64)| valid.saturating_add(*refused);
        let highest = sums.iter().map(all).max().unwrap_or_default();
        let (mut valid, mut refused) = (String::new(), String::new());
        for (day, (good, bad)) in sums.iter().enumerate() {
            let top = scaled(good.saturating_add(*bad), highest);
            let low = if *bad == 0 { top } else { scaled(*good, highest).min(top.saturating_sub(1)) };
            bar(&mut valid, day, 0, low);
            bar(&mut refused, day, low, top);
        }
        let starts = (0_i64..).map(|day| shown(range.start.saturating_add(Duration::days(day))));
        let numbers = starts.zip(&sums).filter(|(_, sum)| all(sum) > 0);
        let mut numbers: Vec<_> = numbers.map(|(day, (valid, refused))| (day, *valid, *refused)).collect();
        numbers.reverse();
        Self {
            numbers,
            valid,
            refused,
            width: days.saturating_mul(WIDTH),
            valid_count: sums.iter().fold(0, |sum, day| sum.saturating_add(day.0)),
            refused_count: sums.iter().fold(0, |sum, day| sum.saturating_add(day.1)),
            highest,
            days: (shown(range.start), shown(range.end.saturating_sub(Duration::NANOSECOND))),
        }
    }

    pub(in crate::api::console) fn is_empty(&self) -> bool {
        self.highest == 0
    }
}

/// Returns how many are valid, and how many are not.
pub(super) fn split(counts: &[VerdictCount]) -> (u64, u64) {
    counts.iter().fold((0, 0), |(valid, refused): (u64, u64), count| match count.verdict {
        VALID => (valid.saturating_add(count.verifications), refused),
        _ => (valid, refused.saturating_add(count.verifications)),
    })
}

/// Returns the height of a number; what is not zero can be seen.
fn scaled(number: u64, highest: u64) -> u64 {
    let height = u128::from(number).saturating_mul(u128::from(HEIGHT)).checked_div(u128::from(highest));
    let height = height.and_then(|height| u64::try_from(height).ok()).unwrap_or(0);
    if number == 0 { 0 } else { height.max(1) }
}

/// Draws the part of a day's bar between two heights.
fn bar(path: &mut String, day: usize, from: u64, to: u64) {
    let height = to.saturating_sub(from);
    if height == 0 {
        return;
    }
    let (left, top) = (day.saturating_mul(WIDTH).saturating_add(1), HEIGHT.saturating_sub(to));
    // Writing to a String cannot fail.
    let _ = write!(path, "M{left} {top}h8v{height}h-8z");
}

fn shown(time: OffsetDateTime) -> String {
    time.date().format(format_description!("[year]-[month]-[day]")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::usage::{UsageAnswer, UsageQuery, UsageRange, UsageScope};

    #[test]
    fn a_day_is_a_bar_with_what_was_refused_on_top() {
        let start = datetime!(2026-01-01 00:00 UTC);
        let point = |day: i64, counts: &[(i16, u64)]| UsagePoint {
            start: start + Duration::days(day),
            counts: counts
                .iter()
                .map(|&(verdict, verifications)| VerdictCount { verdict, verifications })
                .collect(),
        };
        let usage = |points| Usage {
            query: UsageQuery {
                scope: UsageScope::Organization(OrganizationId::default_organization()),
                step: Step::Day,
                range: UsageRange { start, end: start + Duration::days(3) },
                top: 0,
            },
            answer: UsageAnswer { points, top: Vec::new() },
        };
        let chart = Chart::new(&usage(vec![
            point(0, &[(1, 150), (4, 30), (99, 20)]),
            point(2, &[(1, 1_000), (7, 1)]),
            // Not in the range: left out.
            point(9, &[(1, 5)]),
        ]));
        assert_eq!(chart.numbers, [("2026-01-03".to_owned(), 1_000, 1), ("2026-01-01".to_owned(), 150, 50)]);
        assert_eq!(chart.valid, "M1 86h8v14h-8zM21 1h8v99h-8z");
        assert_eq!(chart.refused, "M1 81h8v5h-8zM21 0h8v1h-8z");
        assert_eq!((chart.valid_count, chart.refused_count, chart.highest), (1_150, 51, 1_001));
        assert_eq!((chart.width, &*chart.days.0, &*chart.days.1), (30, "2026-01-01", "2026-01-03"));
        let large = Chart::new(&usage(vec![point(0, &[(1, u64::MAX), (4, u64::MAX)]), point(1, &[(4, 1)])]));
        assert_eq!((&*large.valid, &*large.refused), ("M1 1h8v99h-8z", "M1 0h8v1h-8zM11 99h8v1h-8z"));
        let none = Chart::new(&usage(Vec::new()));
        assert!(none.is_empty() && none.valid.is_empty() && none.refused.is_empty());
    }
}
