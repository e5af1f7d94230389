//! Latency distributions by quantile, with both axes logarithmic, so that the tail shows. Called by the
//! load bench's report.

use hdrhistogram::Histogram;

use super::{COLOURS, decades, document, line, polyline, text};

const LEFT: f64 = 80.0;
const TOP: f64 = 40.0;
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 320.0;

/// One distribution.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// The share that took longer, from 1 down, and the latency in microseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Curve {
    /// Returns the quantiles of a histogram of nanoseconds, as far as it has values.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn quantiles(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
        let least = 1.0 / histogram.len().max(1) as f64;
        let mut shares = vec![1.0];
        while shares.last().is_some_and(|share| *share > least) {
            shares.push(shares.last().map_or(least, |share| (share * 0.8).max(least)));
        }
        let at = |share: f64| histogram.value_at_quantile(1.0 - share) as f64 / 1e3;
        shares.into_iter().map(|share| (share, at(share))).collect()
    }
}

/// Draws the curves in one plot.
pub(crate) fn curves(title: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (first, last) = decades(points().map(|point| point.1));
    let nines = -decades(points().map(|point| point.0)).0;
    let x = |share: f64| LEFT + WIDTH * (-share.log10() / nines).clamp(0.0, 1.0);
    let y = |micros: f64| {
        TOP + HEIGHT * (1.0 - ((micros.max(1e-9).log10() - first) / (last - first)).clamp(0.0, 1.0))
    };
    let mut drawing = String::new();
    let mut decade = first;
    while decade <= last {
        let micros = 10f64.powf(decade);
        drawing += &line((LEFT, y(micros)), (LEFT + WIDTH, y(micros)), "#dddddd");
        drawing += &text(LEFT - 6.0, y(micros) + 4.0, "end", &duration(micros));
        decade += 1.0;
    }
    let mut nine = 0.0;
    while nine <= nines {
        let share = 10f64.powf(-nine);
        drawing += &line((x(share), TOP), (x(share), TOP + HEIGHT), "#dddddd");
        drawing += &text(x(share), TOP + HEIGHT + 16.0, "middle", &per_cent(share));
        nine += 1.0;
    }
    let mut legend = TOP + 16.0;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = curve
            .points
            .iter()
            .map(|(share, micros)| format!("{:.1},{:.1}", x(*share), y(*micros)))
            .collect();
        drawing += &polyline(&path.join(" "), colour);
        drawing += &line((LEFT + 12.0, legend - 4.0), (LEFT + 32.0, legend - 4.0), colour);
        drawing += &text(LEFT + 38.0, legend, "start", &curve.name);
        legend += 18.0;
    }
    document(LEFT + WIDTH + 40.0, TOP + HEIGHT + 30.0, title, &drawing)
}

fn duration(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{:.0} s", micros / 1e6),
        micros if micros >= 1e3 => format!("{:.0} ms", micros / 1e3),
        micros => format!("{micros:.0} µs"),
    }
}

/// Formats the share that was faster.
fn per_cent(slower: f64) -> String {
    let faster = (1.0 - slower) * 100.0;
    let digits = match slower {
        slower if slower >= 0.01 => 0,
        slower if slower >= 0.001 => 1,
        _ => 3,
    };
    format!("{faster:.digits$} %")
}
