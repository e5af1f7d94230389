//! Plots as SVG: bars of throughput, and latency distributions. Used by the load bench; its mode `plot-delays` draws files
//! of delays measured elsewhere.

mod bars;
mod curves;

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;

pub(crate) use self::bars::{Bar, bars};
pub(crate) use self::curves::{Curve, curves};

/// Draws distributions of delays, a curve for each file: `plot-delays FILE… OUT.svg`.
///
/// A line of a file is a delay in milliseconds, and its count if more than one; `#` starts a comment,
/// and the first one is the curve's name.
pub(crate) fn delays(files: &[String]) -> anyhow::Result<()> {
    let Some((output, inputs)) = files.split_last().filter(|(_, inputs)| !inputs.is_empty()) else {
        bail!("plot-delays wants one or more files of delays, and the name of the SVG");
    };
    let read =
        inputs.iter().map(|file| read(Path::new(file)).with_context(|| format!("{file} cannot be drawn")));
    let read = read.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(fs::write(output, curves("From revocation to refusal", &read)?)?)
}

fn read(file: &Path) -> anyhow::Result<Curve> {
    let text = fs::read_to_string(file)?;
    let mut latency = Histogram::<u64>::new(3)?;
    for line in text.lines() {
        let content = line.split('#').next().unwrap_or_default();
        let mut numbers = content.split_whitespace().map(str::parse::<f64>);
        let Some(millis) = numbers.next().transpose()? else { continue };
        let times = numbers.next().transpose()?.unwrap_or(1.0);
        latency.record_n(whole(millis * 1e6).max(1), whole(times))?;
    }
    ensure!(!latency.is_empty(), "there is no delay in it");
    let name = text.lines().find_map(|line| line.strip_prefix('#')).unwrap_or("delays");
    Ok(Curve { name: name.trim().to_owned(), points: Curve::quantiles(&latency) })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and never negative")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Returns the powers of ten that enclose the positive values.
fn decades(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 1.0..10.0;
    }
    let first = low.log10().floor();
    10f64.powf(first)..10f64.powf(high.log10().ceil().max(first + 1.0))
}
