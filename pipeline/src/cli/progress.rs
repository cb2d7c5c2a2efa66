//! How a run looks: bars on a terminal, plain lines elsewhere, JSON lines for machines. Three readers of the same
//! events.

use super::{clean, remark};
use crate::event::{Event, Reader};
use crate::finished::NodeState;
use crate::run::is_stopped;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The reader that suits where the output goes.
pub fn reader(json: bool, quiet: bool) -> Box<dyn Reader> {
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb") || std::env::var_os("CI").is_some();
    if json {
        Box::new(Json)
    } else if std::io::stderr().is_terminal() && !dumb && !quiet {
        Box::new(Bars::default())
    } else {
        Box::new(Lines { quiet, ..Lines::default() })
    }
}

/// A number of seconds for people.
pub fn seconds(seconds: f64) -> String {
    // rounded first and split then, or there were minutes of 60 seconds
    let (whole, minutes) = (seconds.round(), (seconds / 60.0).round());
    match seconds {
        s if s < 9.995 => format!("{s:.2} s"),
        _ if whole < 120.0 => format!("{whole:.0} s"),
        _ if whole < 7200.0 => format!("{:.0} min {:02.0} s", (whole / 60.0).floor(), whole % 60.0),
        _ => format!("{:.0} h {:02.0} min", (minutes / 60.0).floor(), minutes % 60.0),
    }
}

/// The last line of a run goes to standard output; if nobody reads it, the run is no less done.
fn last(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The last line of a run, for people.
fn summary(executed: usize, cached: usize, failed: usize, taken: f64) -> String {
    let units = |n: usize, word: &str| format!("{n} unit{} {word}", if n == 1 { "" } else { "s" });
    let taken = seconds(taken);
    match (executed, failed) {
        (0, 0) if is_stopped() => format!("no unit finished, {cached} known ({taken})"),
        (0, 0) => format!("nothing to do: {} ({taken})", units(cached, "known")),
        (_, 0) => format!("{}, {cached} known ({taken})", units(executed, "run")),
        _ => format!("{}, {cached} known, {failed} failed ({taken})", units(executed, "run")),
    }
}

/// How far a transfer is.
fn transfer(stage: &str, verb: &str, units: usize, open: usize, bytes: u64, over: bool) -> String {
    let whose = if stage.is_empty() { "remote" } else { stage };
    let rest = match (over, open) {
        (true, _) | (_, 0) => String::new(),
        (_, open) => format!(", {open} to go"),
    };
    format!("{whose}: {units} unit{} {verb} ({}{rest})", if units == 1 { "" } else { "s" }, room(bytes))
}

/// Bytes as people read them.
pub fn room(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 1e6 => format!("{:.1} kB", few / 1e3),
        some if some < 1e9 => format!("{:.1} MB", some / 1e6),
        many => format!("{:.2} GB", many / 1e9),
    }
}

fn failure(stage: &str, unit: &str, error: &str, hint: Option<&String>, log: Option<&String>) -> String {
    let mut text = format!("error: stage `{stage}`, {}: {error}", clean(unit));
    hint.iter().for_each(|hint| text.push_str(&format!("\n  hint: {hint}")));
    log.iter().for_each(|log| text.push_str(&format!("\n  log: {log}")));
    text
}

/// So many failures of a stage are told one by one.
pub const TOLD: usize = 10;

/// What was told of failures, by stage.
#[derive(Default)]
struct Failures {
    /// How many units have failed.
    failed: HashMap<String, usize>,
    /// How many tries failed and were followed by another.
    tried: HashMap<String, usize>,
}

impl Failures {
    /// What is said of another one; nothing if that is too many.
    fn another(&mut self, stage: &str, unit: &str, error: &str, told: [Option<&String>; 2]) -> Option<String> {
        let count = self.failed.entry(stage.into()).or_default();
        *count += 1;
        (*count <= TOLD).then(|| failure(stage, unit, error, told[0], told[1]))
    }

    /// What is said of a try that failed and is followed by another; nothing but once if that is too many.
    fn retry(&mut self, event: &Event) -> Option<String> {
        let Event::Retry { stage, unit, error, retry, of, log } = event else { return None };
        let count = self.tried.entry(stage.clone()).or_default();
        *count += 1;
        if *count > TOLD {
            let more = format!("{stage}: what else is tried again is in `effigy log {stage}`");
            return (*count == TOLD + 1).then_some(more);
        }
        // the words of a program follow its sentence
        let error = error.lines().next().unwrap_or_default().trim_end_matches(':');
        let log = log.as_ref().map_or(String::new(), |log| format!("; log: {log}"));
        Some(format!("{stage}, {}: {error}; it is tried again ({retry} of {of}){log}", clean(unit)))
    }

    /// The same of all stages that did not come to their end.
    fn all(&mut self) -> Vec<String> {
        let stages: Vec<String> = self.failed.keys().cloned().collect();
        stages.iter().filter_map(|stage| self.rest(stage)).collect()
    }

    /// What is said behind the last one of a stage.
    fn rest(&mut self, stage: &str) -> Option<String> {
        let more = self.failed.remove(stage)?.checked_sub(TOLD + 1)? + 1;
        Some(format!(
            "error: stage `{stage}`: {more} more have failed\n  hint: `effigy log {stage}` has what they wrote"
        ))
    }
}

/// JSON lines on standard output.
struct Json;

impl Reader for Json {
    fn hear(&mut self, event: &Event) {
        let line = serde_json::to_string(event).expect("an event is plain data");
        // a pipe that was closed is read by nobody
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// Plain lines on standard error.
#[derive(Default)]
struct Lines {
    quiet: bool,
    failures: Failures,
    said: HashMap<String, Instant>,
}

/// Off a terminal, how far a stage is is said this often.
const EVERY: Duration = Duration::from_secs(10);

impl Reader for Lines {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Finished { stage, .. } => self.failures.rest(stage).iter().for_each(|text| remark(text)),
            Event::Done { .. } => self.failures.all().iter().for_each(|text| remark(text)),
            _ => {}
        }
        match event {
            Event::Stage { stage, units, cached, equal } if !self.quiet => {
                self.said.insert(stage.clone(), Instant::now());
                let same = if *equal > 0 { format!(", {}", super::plan::equal(*equal)) } else { String::new() };
                remark(&format!("{stage}: {} of {units} units to run, {cached} known{same}", units - cached - equal));
            }
            Event::Progress { stage, ran, of, within, note } if !self.quiet => {
                if self.said.get(stage).is_some_and(|said| said.elapsed() < EVERY) {
                    return;
                }
                self.said.insert(stage.clone(), Instant::now());
                let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
                remark(&format!("{stage}: {:.1} of {of}{note}", *ran as f64 + within));
            }
            Event::Transfer { stage, verb, units, open, bytes, over } if !self.quiet => {
                let said = self.said.entry(format!("{stage}/{verb}")).or_insert_with(Instant::now);
                if *over && *units > 0 || said.elapsed() >= EVERY {
                    *said = Instant::now();
                    remark(&transfer(stage, verb, *units, *open, *bytes, *over));
                }
            }
            Event::Finished { stage, state: NodeState::Done, executed, cached, rows, seconds: taken, .. }
                if *executed > 0 && !self.quiet =>
            {
                let taken = seconds(*taken);
                let rows = self::rows(*rows);
                remark(&format!("{stage}: done, {executed} run, {cached} known, {rows} ({taken} of work)"));
            }
            Event::Finished { stage, state: NodeState::Skipped, .. } => {
                remark(&format!("{stage}: skipped, because a stage that it needs failed"));
            }
            Event::Retry { .. } if !self.quiet => self.failures.retry(event).iter().for_each(|text| remark(text)),
            Event::Failed { stage, unit, error, hint, log } => {
                let told = self.failures.another(stage, unit, error, [hint.as_ref(), log.as_ref()]);
                told.iter().for_each(|text| remark(text));
            }
            Event::Warning { text } => remark(&format!("warning: {text}")),
            Event::Done { executed, cached, failed, seconds } if !self.quiet => {
                last(&summary(*executed, *cached, *failed, *seconds));
            }
            _ => {}
        }
    }
}

/// Bars on a terminal: one for each stage that has work under way, not for those that wait, of which there may be
/// thousands.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    /// Units that were known, of stages that have others.
    cached: HashMap<String, usize>,
    bars: HashMap<String, ProgressBar>,
    /// Room for the stages' names.
    width: usize,
    failures: Failures,
}

/// Room for the names of stages beside bars; longer ones are shortened there.
const NAMES: (usize, usize) = (12, 24);

/// So many rows, in words.
pub fn rows(count: usize) -> String {
    if count == 1 { "1 row".into() } else { format!("{count} rows") }
}

/// A name in so many letters: of a longer one the middle goes, because what tells variants apart stands at its end.
fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.into();
    }
    let end = width / 2;
    name.chars().take(width.saturating_sub(end + 1)).chain(['…']).chain(name.chars().skip(count - end)).collect()
}

impl Bars {
    fn say(&self, text: &str) {
        self.all.suspend(|| remark(text));
    }

    fn name(&self, stage: &str) -> String {
        format!("{:>width$}", shortened(stage, self.width), width = self.width)
    }

    fn bar(&mut self, stage: &str) -> ProgressBar {
        if let Some(bar) = self.bars.get(stage) {
            return bar.clone();
        }
        let style = ProgressStyle::with_template("{prefix} {bar:20} {taken:>6} {left:>11}  {wide_msg}")
            .expect("the template is a constant")
            .with_key("taken", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&clock(state.elapsed().as_secs_f64()));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&left(state.elapsed().as_secs_f64(), f64::from(state.fraction())));
            })
            .progress_chars("━╸─");
        let bar = self.all.add(ProgressBar::new(1).with_style(style));
        bar.set_prefix(self.name(stage));
        bar.enable_steady_tick(Duration::from_millis(500));
        self.bars.insert(stage.into(), bar.clone());
        bar
    }
}

/// A time in few letters: `42s`, `3m20s`, `2h05m`.
fn clock(seconds: f64) -> String {
    match seconds as u64 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// How long it will take yet, if it goes on as it did; nobody can tell before something is done.
fn left(taken: f64, share: f64) -> String {
    if share > 0.0 { format!("ETA {}", clock((taken * (1.0 - share) / share).ceil())) } else { "ETA -".into() }
}

/// Bars count thousandths of units, so that a single long unit moves.
const PARTS: f64 = 1000.0;

impl Reader for Bars {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Start { stages, .. } => {
                self.all.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
                let longest = stages.iter().map(|stage| stage.chars().count()).max().unwrap_or(0);
                self.width = longest.clamp(NAMES.0, NAMES.1);
            }
            Event::Stage { stage, cached, .. } => {
                self.cached.insert(stage.clone(), *cached);
            }
            Event::Progress { stage, ran, of, within, note } => {
                let bar = self.bar(stage);
                let done = *ran as f64 + within;
                bar.set_length((*of as f64 * PARTS) as u64);
                bar.set_position((done * PARTS) as u64);
                let rate = done / bar.elapsed().as_secs_f64().max(0.001);
                let rate = match rate {
                    _ if done == 0.0 => String::new(),
                    rate if rate >= 0.1 => format!("  {rate:.1}/s"),
                    rate => format!("  {:.1}/min", rate * 60.0),
                };
                let note = if note.is_empty() { String::new() } else { format!("  {}", clean(note)) };
                // of what has to run; what was known comes on top of it
                let known = match self.cached.get(stage) {
                    None | Some(0) => String::new(),
                    Some(cached) => format!(", {cached} more known"),
                };
                bar.set_message(format!("{ran}/{of}{known}{rate}{note}"));
            }
            Event::Transfer { stage, verb, units, open, bytes, over } => {
                self.width = self.width.max(NAMES.0);
                let bar = self.bar("remote");
                bar.set_length((*units + *open) as u64);
                bar.set_position(*units as u64);
                bar.set_message(transfer(stage, verb, *units, *open, *bytes, *over));
                if *over {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                    self.bars.remove("remote");
                    if *units > 0 {
                        self.say(&transfer(stage, verb, *units, *open, *bytes, *over));
                    }
                }
            }
            Event::Finished { stage, state, executed, cached, failed, seconds: taken, rows } => {
                self.failures.rest(stage).iter().for_each(|text| self.say(text));
                if let Some(bar) = self.bars.remove(stage) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if *executed > 0 || *failed > 0 || *state != NodeState::Done {
                    let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                    // a line that stays has the whole name
                    let (name, taken) = (format!("{stage:>width$}", width = self.width), seconds(*taken));
                    self.say(&match *state {
                        NodeState::Skipped => format!("{name} skipped, because a stage that it needs failed"),
                        _ => format!(
                            "{name} {state}: {executed} run, {cached} known{failed}, {} ({taken} of work)",
                            self::rows(*rows)
                        ),
                    });
                }
            }
            Event::Retry { .. } => self.failures.retry(event).iter().for_each(|text| self.say(text)),
            Event::Failed { stage, unit, error, hint, log } => {
                let told = self.failures.another(stage, unit, error, [hint.as_ref(), log.as_ref()]);
                told.iter().for_each(|text| self.say(text));
            }
            Event::Warning { text } => self.say(&format!("warning: {text}")),
            Event::Done { executed, cached, failed, seconds } => {
                self.failures.all().iter().for_each(|text| self.say(text));
                self.all.suspend(|| last(&summary(*executed, *cached, *failed, *seconds)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_variants_apart_is_not_cut() {
        let seeds = ["avatar@no_expression@seed=1", "avatar@no_expression@seed=2"].map(|name| shortened(name, 16));
        assert_eq!(seeds, ["avatar@…n@seed=1", "avatar@…n@seed=2"]);
        assert_eq!(shortened("avatar", 12), "avatar");
        assert_eq!([rows(1), rows(2)], ["1 row", "2 rows"]);
    }

    #[test]
    fn times_are_short_and_nothing_is_foretold_from_nothing() {
        assert_eq!([clock(0.9), clock(200.0), clock(7500.0)], ["0s", "3m20s", "2h05m"]);
        assert_eq!([left(30.0, 0.25), left(30.0, 0.0), left(30.0, 1.0)], ["ETA 1m30s", "ETA -", "ETA 0s"]);
    }

    #[test]
    fn seconds_are_rounded_before_they_are_split() {
        let told = [0.004, 9.994, 9.996, 59.6, 119.4, 119.6, 179.7, 3599.7, 7199.4, 7199.6, 10_799.0, 10_830.0];
        let expected = [
            "0.00 s",
            "9.99 s",
            "10 s",
            "60 s",
            "119 s",
            "2 min 00 s",
            "3 min 00 s",
            "60 min 00 s",
            "119 min 59 s",
            "2 h 00 min",
            "3 h 00 min",
            "3 h 01 min",
        ];
        assert_eq!(told.map(seconds), expected);
    }

    #[test]
    fn names_stand_flush_and_long_ones_lose_their_middle() {
        let bars = Bars { width: 6, ..Bars::default() };
        assert_eq!((bars.name("ab").as_str(), bars.name("abcdefgh").as_str()), ("    ab", "ab…fgh"));
    }
}
