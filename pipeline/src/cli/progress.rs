//! How a run looks: bars on a terminal, plain lines elsewhere, JSON lines for machines. Three readers of the same events.

use crate::event::{Event, Reader};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0) / 60.0),
    }
}

/// The last line of a run, for people.
fn summary(executed: usize, cached: usize, failed: usize, taken: f64) -> String {
    let units = |n: usize, word: &str| format!("{n} unit{} {word}", if n == 1 { "" } else { "s" });
    let taken = seconds(taken);
    match (executed, failed) {
        (0, 0) => format!("nothing to do: {} ({taken})", units(cached, "known")),
        (_, 0) => format!("{}, {cached} known ({taken})", units(executed, "run")),
        _ => format!("{}, {cached} known, {failed} failed ({taken})", units(executed, "run")),
    }
}

fn failure(stage: &str, unit: &str, error: &str, hint: Option<&String>, log: Option<&String>) -> String {
    let mut text = format!("error: stage `{stage}`, {unit}: {error}");
    hint.iter().for_each(|hint| text.push_str(&format!("\n  hint: {hint}")));
    log.iter().for_each(|log| text.push_str(&format!("\n  log: {log}")));
    text
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
    said: HashMap<String, Instant>,
}

/// Off a terminal, how far a stage is is said this often.
const EVERY: Duration = Duration::from_secs(10);

impl Reader for Lines {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Stage { stage, units, cached } if !self.quiet => {
                self.said.insert(stage.clone(), Instant::now());
                eprintln!("{stage}: {} of {units} units to run, {cached} known", units - cached);
            }
            Event::Progress { stage, ran, of, within, note } if !self.quiet => {
                if self.said.get(stage).is_some_and(|said| said.elapsed() < EVERY) {
                    return;
                }
                self.said.insert(stage.clone(), Instant::now());
                let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
                eprintln!("{stage}: {:.1} of {of}{note}", *ran as f64 + within);
            }
            Event::Finished { stage, state: "done", executed, cached, rows, seconds: taken, .. }
                if *executed > 0 && !self.quiet =>
            {
                let taken = seconds(*taken);
                eprintln!("{stage}: done, {executed} run, {cached} known, {rows} rows ({taken} of work)");
            }
            Event::Finished { stage, state: "skipped", .. } => {
                eprintln!("{stage}: skipped, because a stage that it needs failed");
            }
            Event::Failed { stage, unit, error, hint, log } => {
                eprintln!("{}", failure(stage, unit, error, hint.as_ref(), log.as_ref()));
            }
            Event::Warning { text } => eprintln!("warning: {text}"),
            Event::Done { executed, cached, failed, seconds } if !self.quiet => {
                println!("{}", summary(*executed, *cached, *failed, *seconds));
            }
            _ => {}
        }
    }
}

/// Bars on a terminal.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: HashMap<String, (ProgressBar, Instant, usize)>,
}

impl Bars {
    fn say(&self, text: &str) {
        self.all.suspend(|| eprintln!("{text}"));
    }
}

/// Bars count thousandths of units, so that a single long unit moves.
const PARTS: f64 = 1000.0;

impl Reader for Bars {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Start { .. } => self.all.set_draw_target(ProgressDrawTarget::stderr_with_hz(8)),
            Event::Stage { stage, units, cached } => {
                let style = ProgressStyle::with_template("{prefix:>16} {bar:28} {msg}  ETA {eta}")
                    .expect("the template is a constant")
                    .progress_chars("━╸─");
                let bar = self.all.add(ProgressBar::new(((units - cached) as f64 * PARTS) as u64).with_style(style));
                bar.set_prefix(stage.clone());
                bar.set_message(format!("0/{}, {cached} known", units - cached));
                bar.enable_steady_tick(Duration::from_millis(500));
                self.bars.insert(stage.clone(), (bar, Instant::now(), *cached));
            }
            Event::Progress { stage, ran, of, within, note } => {
                let Some((bar, since, cached)) = self.bars.get(stage) else { return };
                let done = *ran as f64 + within;
                bar.set_length((*of as f64 * PARTS) as u64);
                bar.set_position((done * PARTS) as u64);
                let rate = done / since.elapsed().as_secs_f64().max(0.001);
                let rate = if rate >= 0.1 { format!("{rate:.1}/s") } else { format!("{:.1}/min", rate * 60.0) };
                let note = if note.is_empty() { String::new() } else { format!("  {note}") };
                bar.set_message(format!("{ran}/{of}, {cached} known  {rate}{note}"));
            }
            Event::Finished { stage, state, executed, cached, failed, seconds: taken, rows } => {
                if let Some((bar, ..)) = self.bars.remove(stage) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if *executed > 0 || *failed > 0 || *state != "done" {
                    let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                    let taken = seconds(*taken);
                    self.say(&format!(
                        "{stage:>16} {state}: {executed} run, {cached} known{failed}, {rows} rows ({taken})"
                    ));
                }
            }
            Event::Failed { stage, unit, error, hint, log } => {
                self.say(&failure(stage, unit, error, hint.as_ref(), log.as_ref()));
            }
            Event::Warning { text } => self.say(&format!("warning: {text}")),
            Event::Done { executed, cached, failed, seconds } => {
                self.all.suspend(|| println!("{}", summary(*executed, *cached, *failed, *seconds)));
            }
        }
    }
}
