//! Bars on a logarithmic axis, each with its spread. Called by the load bench's report.

use plotters::prelude::*;

use super::decades;

/// One bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

/// Draws the bars below each other.
///
/// # Errors
/// Those of the library.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> anyhow::Result<String> {
    let mut svg = String::new();
    let height = 80 + 30 * u32::try_from(bars.len())?;
    let area = SVGBackend::with_string(&mut svg, (820, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let values = decades(bars.iter().flat_map(|bar| [bar.low, bar.high]));
    let least = values.start;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 14))
        .margin_right(60)
        .x_label_area_size(24)
        .y_label_area_size(250)
        .build_cartesian_2d(values.log_scale(), (0..bars.len().saturating_sub(1)).into_segmented())?;
    // The first bar is on top.
    let name = |row: &SegmentValue<usize>| match row {
        SegmentValue::CenterOf(row) => {
            bars.iter().rev().nth(*row).map_or_else(String::new, |bar| bar.name.clone())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&name)
        .draw()?;
    for (row, bar) in bars.iter().rev().enumerate() {
        let corners = [(least, SegmentValue::Exact(row)), (bar.middle, SegmentValue::Exact(row + 1))];
        let mut rectangle = Rectangle::new(corners, BLUE.mix(0.6).filled());
        rectangle.set_margin(5, 5, 0, 0);
        let middle = SegmentValue::CenterOf(row);
        chart.draw_series([rectangle])?;
        chart.draw_series([PathElement::new(
            [(bar.low, middle.clone()), (bar.high, middle.clone())],
            BLACK,
        )])?;
        let label =
            EmptyElement::at((bar.high, middle)) + Text::new(short(bar.middle), (6, -6), ("sans-serif", 12));
        chart.draw_series([label])?;
    }
    area.present()?;
    drop((chart, area));
    Ok(svg)
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
