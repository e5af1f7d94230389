//! Bars on a logarithmic axis, each with its spread. Called by the load bench's report.

use super::{COLOURS, decades, document, line, rectangle, short, text};

const LEFT: f64 = 190.0;
const WIDTH: f64 = 560.0;
const STEP: f64 = 30.0;
const TOP: f64 = 40.0;

/// One bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

/// Draws the bars below each other.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let (first, last) = decades(bars.iter().flat_map(|bar| [bar.low, bar.high]));
    let x = |value: f64| LEFT + WIDTH * ((value.max(1e-9).log10() - first) / (last - first)).clamp(0.0, 1.0);
    let mut drawing = String::new();
    let mut bottom = TOP;
    for _ in bars {
        bottom += STEP;
    }
    let mut decade = first;
    while decade <= last {
        let value = 10f64.powf(decade);
        drawing += &line((x(value), TOP), (x(value), bottom), "#dddddd");
        drawing += &text(x(value), bottom + 16.0, "middle", &short(value));
        decade += 1.0;
    }
    let mut y = TOP;
    for bar in bars {
        let middle = y + STEP / 2.0;
        drawing += &text(LEFT - 8.0, middle + 4.0, "end", &bar.name);
        drawing += &rectangle((LEFT, y + 5.0), (x(bar.middle) - LEFT, STEP - 10.0), COLOURS[0]);
        drawing += &line((x(bar.low), middle), (x(bar.high), middle), "black");
        drawing += &text(x(bar.high) + 6.0, middle + 4.0, "start", &short(bar.middle));
        y += STEP;
    }
    document(LEFT + WIDTH + 70.0, bottom + 30.0, title, &drawing)
}
