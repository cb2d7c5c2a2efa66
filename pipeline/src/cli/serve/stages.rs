//! The stages of a run as a drawing, whether the run is over or on.

use crate::cli::live::{Live, LiveStage};
use crate::finished::NodeState;
use crate::record::{Record, StageRecord, Wiring};
use crate::report::graph::{Boxed, Look, draw_boxes};

/// The drawing of a run that is over; `None` if its record says nothing of what takes what, as older ones do.
pub fn of_record(record: &Record) -> Option<String> {
    let wired = record.stages.iter().any(|stage| stage.wiring != Wiring::default());
    if !wired && record.stages.len() > 1 {
        return None;
    }
    let boxed = |stage: &StageRecord| {
        let look = match stage.state {
            _ if stage.failed > 0 => Look::Failed,
            NodeState::Failed => Look::Failed,
            NodeState::Skipped => Look::Skipped,
            _ if stage.executed > 0 => Look::Ran,
            _ => Look::Known,
        };
        let counts = [(stage.failed, "failed"), (stage.executed, "ran"), (stage.cached, "known")];
        let mut parts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if parts.is_empty() {
            parts.push(match (stage.state, stage.rows) {
                (NodeState::Done, Some(1)) => "1 row".into(),
                (NodeState::Done, Some(rows)) => format!("{rows} rows"),
                (state, _) => state.to_string(),
            });
        }
        if stage.seconds >= 0.05 {
            parts.push(super::super::progress::seconds(stage.seconds));
        }
        boxed(&stage.name, &stage.kind, parts.join(" · "), look, &stage.wiring)
    };
    draw_boxes(&record.stages.iter().map(boxed).collect::<Vec<_>>()).map(|drawn| drawn.svg)
}

/// The drawing of a run that is on.
pub fn of_live(live: &Live) -> Option<String> {
    let boxes: Vec<Boxed> = live
        .graph
        .iter()
        .map(|(name, kind, wiring)| {
            let (status, look) = match live.stages.iter().find(|stage| stage.name == *name) {
                Some(stage) => standing(stage),
                None => ("waits".into(), Look::Skipped),
            };
            boxed(name, kind, status, look, wiring)
        })
        .collect();
    draw_boxes(&boxes).map(|drawn| drawn.svg)
}

fn standing(stage: &LiveStage) -> (String, Look) {
    match stage.state.as_str() {
        "running" => (format!("{} of {} units", stage.ran as usize, stage.units), Look::Due),
        "failed" => ("failed".into(), Look::Failed),
        "skipped" => ("skipped".into(), Look::Skipped),
        _ if stage.ran > 0.0 => (format!("{} ran", stage.ran as usize), Look::Ran),
        _ if stage.cached > 0 => (format!("{} known", stage.cached), Look::Known),
        _ => ("done".into(), Look::Known),
    }
}

fn boxed(name: &str, kind: &str, status: String, look: Look, wiring: &Wiring) -> Boxed {
    let tip = format!("{name}: {kind}, {status}");
    Boxed { name: name.into(), status, tip, look, from: wiring.from.clone(), with: wiring.with.clone() }
}
