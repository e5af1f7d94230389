//! Plots as SVG, without a library: bars of throughput, and latency distributions. Used by the load
//! bench; its mode `plot-delays` draws files of delays measured elsewhere.

mod bars;
mod curves;

use std::fs;
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
    Ok(fs::write(output, curves("From revocation to refusal", &read))?)
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

const COLOURS: [&str; 6] = ["#3366cc", "#dc3912", "#109618", "#990099", "#ff9900", "#0099c6"];

/// Puts a drawing into a frame with a title.
fn document(width: f64, height: f64, title: &str, drawing: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\">{}</text>\n{drawing}</svg>\n",
        escaped(title)
    )
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(text))
}

fn line(from: (f64, f64), to: (f64, f64), colour: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

fn rectangle((x, y): (f64, f64), (width, height): (f64, f64), colour: &str) -> String {
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n"
    )
}

fn polyline(points: &str, colour: &str) -> String {
    format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Returns the exponents of the powers of ten that enclose the positive values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        (0.0, 1.0)
    } else {
        (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0))
    }
}

/// Formats a number for an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => {
            format!("{:.3}", value / 1e6).trim_end_matches('0').trim_end_matches('.').to_owned() + "M"
        }
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value => format!("{value:.0}"),
    }
}
