//! How a head model in training does on people it does not learn from: their codes are fitted now and then, and the
//! errors written down.
//!
//! No stage, but what `train_head_model` does every so many steps. Nothing that comes out of it goes back into
//! training, and nothing is carried from one time to the next.

use crate::common::head_models::UNIT_MM;
use crate::common::scan_pools::read_scans;
use anyhow::{Context, Result};
use models::nphm::sample::Scan;
use models::nphm::train::Trainer;
use models::nphm::validate::{Trial, validate};
use protocol::Table;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The columns of the curve.
const HEADER: &str = "step,loss,surface_mm,normals,correspondence_mm\n";

/// What a file is known by, device and inode, if it is there: a worker's paths are second names or links, others in
/// each table.
pub fn content(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The scans to try, and what came of it so far.
pub struct Validation {
    scans: Vec<Scan>,
    trial: Trial,
    /// CSV: step, loss (the weighted sum that training has, too), mean distance of surface points from the zero set,
    /// normals, and the root mean squared error of canonical places.
    text: String,
}

impl Validation {
    /// The first `scans` scans of each person of a table, none of whose files is `learned` from (by [`content`]).
    ///
    /// # Errors
    /// If it has no rows or shares a file with what is learned from, or a file is missing, damaged or of another kind
    /// of head.
    pub fn new(
        table: &Table,
        learned: &BTreeSet<(u64, u64)>,
        like: &Scan,
        scans: usize,
        trial: Trial,
    ) -> Result<Validation> {
        anyhow::ensure!(
            !table.is_empty() && scans > 0,
            "there is nothing to validate on\nhint: leave `validation` out"
        );
        let mut all: Vec<Scan> = Vec::new();
        for (identity, row) in table.rows().enumerate() {
            let path = row.path("scans")?;
            anyhow::ensure!(
                !content(&path).is_some_and(|file| learned.contains(&file)),
                "the scans {} are learned from and validated on\nhint: `validation` is of people who are not among the stage's rows",
                path.display()
            );
            let own = read_scans(&path, identity as i64, all.len() as i64)?;
            anyhow::ensure!(
                own.iter().all(|scan| scan.anchors.len() == like.anchors.len()),
                "the scans {} have other anchors than those that are learned from\nhint: both are of one template",
                path.display()
            );
            all.extend(own.into_iter().take(scans));
        }
        Ok(Validation { scans: all, trial, text: HEADER.into() })
    }

    /// As if nothing had been tried.
    pub fn forget(&mut self) {
        self.text = HEADER.into();
    }

    /// Tries the model as it is after `step` steps.
    pub fn run(&mut self, step: u64, trainer: &mut Trainer) {
        let losses = validate(trainer, &self.scans, &self.trial);
        let term = |name: &str| losses.terms.iter().find(|(n, _)| *n == name).map_or(f64::NAN, |(_, value)| *value);
        let (loss, surface, normals) = (losses.total.double_value(&[]), term("surface") * UNIT_MM, term("normals"));
        // the term is a mean over coordinates
        let places = (3.0 * term("correspondence")).sqrt() * UNIT_MM;
        writeln!(self.text, "{step},{loss:.6},{surface:.4},{normals:.4},{places:.4}").expect("writing to a string");
    }

    /// Writes the curve.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Goes on from what [`Validation::write`] wrote.
    ///
    /// # Errors
    /// If the file is missing or another one.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::ensure!(text.starts_with(HEADER), "{} is another curve", path.display());
        self.text = text;
        Ok(())
    }
}
