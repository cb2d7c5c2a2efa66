//! Damage that shows amid a run: a file or a table that is needed and is not what it was. It is removed, what is in
//! work is finished and kept, and the run passes over the plan once more: what made the lost file is then a miss like
//! any other.

use super::{Outcome, Run, State};
use crate::error::{Place, Problem};
use crate::event::Event;
use anyhow::{Result, bail};
use manifests::{Manifest, Type, Value};

/// Something in the workspace that is needed and not what it was; it has been removed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

/// More passes than this are not made: a disk that spoils whatever it is given is no disk.
pub(super) const PASSES: usize = 20;

impl Run<'_> {
    /// Makes sure that the files of these rows can be worked on.
    ///
    /// # Errors
    /// [`Damaged`], if one cannot.
    pub(super) fn sound(&self, stage: &str, table: &Manifest, rows: impl Iterator<Item = usize> + Clone) -> Result<()> {
        let mut blobs = Vec::new();
        for column in table.schema().columns().iter().filter(|column| column.ty == Type::Blob) {
            for row in rows.clone() {
                if let Value::Blob(blob) = table.value(row, &column.name)? {
                    blobs.push(blob);
                }
            }
        }
        let damaged = self.cache.damaged(&blobs);
        let Some(first) = damaged.first() else { return Ok(()) };
        if let Some(path) = damaged.iter().find_map(|digest| self.absent.get(digest)) {
            let message = format!(
                "{} is gone, or has changed since it was read for what stands before `--from`, and stage `{stage}` reads it",
                path.display()
            );
            let hint = "leave `--from` out, so that what stands before it is run as well where it has to be";
            return Err(Problem::at(&Place::command_line(), message).hint(hint).into());
        }
        self.cache.blobs().discard(&damaged);
        let more = if damaged.len() > 1 { format!(" and {} more", damaged.len() - 1) } else { String::new() };
        let first = first.short();
        bail!(Damaged(format!(
            "a file that stage `{stage}` reads is damaged or gone ({first}{more}); it is made again"
        )))
    }

    /// Ends this pass after what is in work, if the error tells of damage; others end the run.
    pub(super) fn despite(&mut self, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let Some(damaged) = error.chain().find_map(|cause| cause.downcast_ref::<Damaged>()) else { return Err(error) };
        let text = damaged.0.clone();
        self.emit(&Event::Warning { text });
        self.again = true;
        Ok(())
    }

    /// Units that each stage has run in this pass, and the seconds they took.
    pub(super) fn ran(&self) -> Vec<(usize, f64)> {
        let states = self.states.iter().zip(&self.tallies);
        let ran = states.map(|(state, tally)| match state {
            State::Active(active) => (active.executed, tally.seconds),
            _ => (tally.executed, tally.seconds),
        });
        ran.collect()
    }
}

/// Adds what earlier passes have run to what became of the stages: to the last pass it was known.
pub(super) fn add(outcome: &mut Outcome, earlier: &[(usize, f64)]) {
    for (tally, (executed, seconds)) in outcome.tallies.iter_mut().zip(earlier) {
        tally.executed += executed;
        tally.cached = tally.cached.saturating_sub(*executed);
        tally.seconds += seconds;
    }
}
