//! The results of a run, as text: every goal with its measured value, then every scenario. Also draws
//! the plots. Called once, at the end.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use super::limits;
use super::plan::Plan;
use super::plot::{Bar, Curve, bars, curves};
use super::rounds::{Sample, Series};
use super::scenarios::{CEILING, COLD, FULL, OTHER_FULL, OTHER_STREAM, OTHER_WARM, SELECT, STREAM, WARM};

/// Writes the tables and the plots, and prints the tables.
pub(crate) fn write(plan: &Plan, series: &[Series]) -> anyhow::Result<()> {
    let mut text = goals(plan, series)?;
    writeln!(text)?;
    text += &scenarios(series)?;
    println!("\n{text}");
    fs::write(plan.output.join("results.md"), &text)?;
    fs::write(plan.output.join("throughput.svg"), throughput(plan, series)?)?;
    fs::write(plan.output.join("latency.svg"), latency(series)?)?;
    println!("written to {}", plan.output.display());
    Ok(())
}

/// The direction of a goal.
#[derive(Debug, Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// Two series, the value of each that is compared, and the goal of the ratio.
type Ratio<'a> = (&'static str, Option<&'a Series>, Option<&'a Series>, fn(&Sample) -> f64, Goal);

/// Returns the ratios of everything but limits.
fn ratios<'a>(plan: &Plan, series: &'a [Series]) -> [Ratio<'a>; 9] {
    let find = |name, table, scheduled| series.iter().find(|found| found.is(name, Some(table), scheduled));
    let (main, tables) = (plan.main_table, &plan.tables);
    let (smallest, largest) = (tables.iter().min().copied(), tables.iter().max().copied());
    let throughput: fn(&Sample) -> f64 = |sample| sample.per_second;
    let p99: fn(&Sample) -> f64 = |sample| sample.p99;
    let warm_at = |table: Option<u32>| table.and_then(|table| find(WARM, table, false));
    let closed = |name| find(name, main, false);
    [
        ("warm / ceiling", closed(WARM), closed(CEILING), throughput, Goal::AtLeast(0.9)),
        ("FULL / ceiling", closed(FULL), closed(CEILING), throughput, Goal::AtLeast(0.5)),
        ("FULL / one SELECT a Verify", closed(FULL), closed(SELECT), throughput, Goal::AtLeast(3.0)),
        ("VerifyStream / warm, answers", closed(STREAM), closed(WARM), throughput, Goal::AtLeast(8.0)),
        (
            "warm, largest / smallest table",
            warm_at(largest),
            warm_at(smallest),
            throughput,
            Goal::AtLeast(0.95),
        ),
        (
            "p99, warm / ceiling, half its load",
            find(WARM, main, true),
            find(CEILING, main, true),
            p99,
            Goal::AtMost(1.5),
        ),
        ("this build / the other, warm", closed(WARM), closed(OTHER_WARM), throughput, Goal::None),
        ("this build / the other, FULL", closed(FULL), closed(OTHER_FULL), throughput, Goal::None),
        (
            "this build / the other, VerifyStream",
            closed(STREAM),
            closed(OTHER_STREAM),
            throughput,
            Goal::None,
        ),
    ]
}

/// Writes the ratios and the memory, each with its goal.
fn goals(plan: &Plan, series: &[Series]) -> anyhow::Result<String> {
    let rows = ratios(plan, series).into_iter().chain(limit_ratios(series));
    let mut text =
        "| ratio | goal | median | lowest to highest round | |\n|---|---|---|---|---|\n".to_owned();
    for (name, above, below, value, goal) in rows {
        let (Some(above), Some(below)) = (above, below) else { continue };
        let ratios = above.samples.iter().zip(&below.samples).map(|(a, b)| value(a) / value(b));
        let (low, middle, high) = spread(ratios).context("no round")?;
        let (wanted, met) = match goal {
            Goal::AtLeast(least) => (format!("≥ {least}"), middle >= least),
            Goal::AtMost(most) => (format!("≤ {most}"), middle <= most),
            Goal::None => (String::new(), true),
        };
        let met = if wanted.is_empty() {
            ""
        } else if met {
            "met"
        } else {
            "not met"
        };
        writeln!(text, "| {name} | {wanted} | {middle:.2} | {low:.2} to {high:.2} | {met} |")?;
    }
    let grown = |found: Option<&Series>| spread(found?.samples.iter().map(|sample| sample.grown));
    let find = |name| series.iter().find(|found| found.name == name);
    let met = |met| if met { "met" } else { "not met" };
    let cold = series.iter().find(|found| found.is(COLD, Some(plan.main_table), false));
    if let Some((low, middle, high)) = grown(cold) {
        let met = met(middle <= 400.0);
        writeln!(
            text,
            "| bytes resident for a cached token | ≤ 400 | {middle:.0} | {low:.0} to {high:.0} | {met} |"
        )?;
    }
    let [unlimited, limited] = limits::COLD.map(|name| grown(find(name)));
    if let Some((unlimited, limited)) = unlimited.zip(limited) {
        let more = limited.1 - unlimited.1;
        let met = met(more <= 100.0);
        writeln!(text, "| bytes resident more for a token with a limit | ≤ 100 | {more:.0} | | {met} |")?;
    }
    Ok(text)
}

/// Returns the ratios of limits.
fn limit_ratios(series: &[Series]) -> [Ratio<'_>; 7] {
    let find = |name| series.iter().find(|found| found.name == name);
    let throughput: fn(&Sample) -> f64 = |sample| sample.per_second;
    let p99: fn(&Sample) -> f64 = |sample| sample.p99;
    let [hot, warm, sparse] = [limits::HOT, limits::WARM, limits::SPARSE].map(|names| names.map(find));
    let beside = |name, baseline| (name, hot[1], find(baseline), throughput, Goal::None);
    [
        ("limited / unlimited, 1000 hot tokens", hot[1], hot[0], throughput, Goal::AtLeast(0.9)),
        ("limited / unlimited, all tokens", warm[1], warm[0], throughput, Goal::None),
        ("p99, limited / unlimited, each once a minute", sparse[1], sparse[0], p99, Goal::None),
        ("1000 hot limited tokens / ceiling", hot[1], find(CEILING), throughput, Goal::None),
        beside("1000 hot limited tokens / one UPDATE a Verify", limits::UPDATE),
        beside("1000 hot limited tokens / one UPDATE, commits not awaited", limits::UPDATE_LATER),
        beside("1000 hot limited tokens / GCRA in Valkey", limits::VALKEY_SCRIPT),
    ]
}

fn scenarios(series: &[Series]) -> anyhow::Result<String> {
    let mut text =
        "| what | table | load | answers/s | p50 µs | p99 µs | p99.9 µs | CPU µs | database CPU µs | statements | MiB |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for found in series {
        let table = found.table.map_or("–".to_owned(), |others| format!("{others}"));
        let load = found.rate.map_or("full".to_owned(), |rate| format!("{rate:.0}/s"));
        let middle = |value: fn(&Sample) -> f64| {
            spread(found.samples.iter().map(value)).map_or(0.0, |(_, middle, _)| middle)
        };
        let statements = spread(found.samples.iter().filter_map(|sample| sample.statements));
        let statements = statements.map_or("–".to_owned(), |(_, middle, _)| format!("{middle:.3}"));
        writeln!(
            text,
            "| {} | {table} | {load} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {statements} | {:.0} |",
            found.name,
            middle(|sample| sample.per_second),
            middle(|sample| sample.p50),
            middle(|sample| sample.p99),
            middle(|sample| sample.p999),
            middle(|sample| sample.cpu),
            middle(|sample| sample.database_cpu),
            middle(|sample| sample.resident),
        )?;
    }
    Ok(text)
}

/// Returns the lowest value, the median and the highest.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    Some((*values.first()?, *values.get(values.len() / 2)?, *values.last()?))
}

fn throughput(plan: &Plan, series: &[Series]) -> anyhow::Result<String> {
    let wanted =
        |found: &&Series| found.rate.is_none() && found.table.is_none_or(|table| table == plan.main_table);
    let made = series.iter().filter(wanted).filter_map(|found| {
        let (low, middle, high) = spread(found.samples.iter().map(|sample| sample.per_second))?;
        Some(Bar { name: found.name.to_owned(), low, middle, high })
    });
    bars(
        "Answers a second (logarithmic; the line is from the lowest to the highest round)",
        &made.collect::<Vec<_>>(),
    )
}

fn latency(series: &[Series]) -> anyhow::Result<String> {
    let scheduled = series.iter().filter_map(|found| Some((found, found.rate?)));
    let made = scheduled.map(|(found, rate)| Curve {
        name: format!("{}, {rate:.0}/s", found.name),
        points: Curve::quantiles(&found.latency),
    });
    curves("Latency on a schedule, from the moment a request was due", &made.collect::<Vec<_>>())
}
