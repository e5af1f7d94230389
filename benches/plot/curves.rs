//! Latency distributions by quantile, with both axes logarithmic, so that the tail shows. Called by the
//! load bench's report.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::decades;

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
///
/// # Errors
/// Those of the library.
pub(crate) fn curves(title: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (720, 390)).into_drawing_area();
    area.fill(&WHITE)?;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    // From all to few: the number of nines.
    let nines = 0.0..-decades(points().map(|point| point.0)).start.log10();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 14))
        .margin_right(40)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(nines, decades(points().map(|point| point.1)).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|nines| per_cent(10f64.powf(-nines)))
        .y_label_formatter(&|micros| duration(*micros))
        .draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let points = curve.points.iter().map(|(share, micros)| (-share.log10(), *micros));
        let line = LineSeries::new(points, colour.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour);
        chart.draw_series(line)?.label(&curve.name).legend(legend);
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).draw()?;
    area.present()?;
    drop((chart, area));
    Ok(svg)
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
