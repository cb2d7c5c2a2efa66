//! `effigy run --check`: how a check is told. What it does is the library's business.

use super::{DONE, FAILED, INTERRUPTED, print, progress, remark};
use crate::check::{Checked, Difference, Sample};
use serde_json::json;

/// A sample as it is typed: `20`, or `10%`.
pub fn sample(text: &str) -> Result<Sample, String> {
    let wrong = || "a sample is a number of units, like 20, or a share of them, like 10%".to_string();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(Sample::Share(percent / 100.0)) } else { Err(wrong()) };
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(wrong()),
        Ok(units) => Ok(Sample::Units(units)),
    }
}

/// Tells what a check came to, and gives the exit code that goes with it.
pub fn tell(checked: &Checked, seconds: f64, as_json: bool) -> u8 {
    let units: usize = checked.stages.iter().map(|(_, units, _)| units).sum();
    let mut names: Vec<&str> = checked.differences.iter().map(|difference| difference.stage.as_str()).collect();
    names.dedup();
    if as_json {
        for difference in &checked.differences {
            let mut line = serde_json::to_value(difference).expect("a difference is plain data");
            line["event"] = "differs".into();
            print(&line.to_string());
        }
        let stages: Vec<_> = checked
            .stages
            .iter()
            .map(|(stage, units, known)| json!({"stage": stage, "checked": units, "known": known}))
            .collect();
        print(
            &json!({"event": "checked", "stages": stages, "checked": units, "differ": names,
                    "differences": checked.differences.len(), "seconds": seconds})
            .to_string(),
        );
    } else {
        checked.differences.iter().for_each(|difference| remark(&one(difference)));
        for (stage, units, known) in &checked.stages {
            let of = if units < known { format!(" of {known}") } else { String::new() };
            let verdict = match (names.contains(&stage.as_str()), units) {
                (_, 0) => "nothing is known of it yet".to_string(),
                (true, _) => format!("{units}{of} executed again: DIFFERS"),
                (false, _) => format!("{units}{of} executed again: equal"),
            };
            print(&format!("{stage}: {verdict}"));
        }
        let taken = progress::seconds(seconds);
        match names.len() {
            0 => print(&format!("{units} units executed again, all equal ({taken})")),
            n => print(&format!(
                "{units} units executed again; {n} of the stages differ: {} ({taken})",
                names.join(", ")
            )),
        }
    }
    match (names.is_empty(), checked.interrupted) {
        (false, _) => FAILED,
        (true, true) => INTERRUPTED,
        (true, false) => DONE,
    }
}

fn one(difference: &Difference) -> String {
    let Difference { stage, unit, column, row, known, now, values } = difference;
    let hint = "its result must depend on its rows, parameters and constants alone: look for time, random numbers without a \
                seed, threads, the order of a folder or a set";
    match (column, row) {
        (Some(column), Some(row)) => {
            let (old, new) = values
                .as_ref()
                .map_or((String::new(), String::new()), |(old, new)| (format!("  ({old})"), format!("  ({new})")));
            format!(
                "error: stage `{stage}`, {unit}: column `{column}` differs in row {row} of what it puts out\n  \
                 known: {known}{old}\n  now:   {now}{new}\n  hint: {hint}"
            )
        }
        _ => format!("error: stage `{stage}`, {unit}: known: {known}; now: {now}\n  hint: {hint}"),
    }
}
