//! What every training loop needs around its step: checkpoints that a killed run continues from, and the loss curve.
//!
//! A checkpoint is a folder `step_000500/` in the scratch folder, written under another name and renamed when complete.
//! Random draws are functions of seed and step (see `models::init`), so there is no generator state to keep.
//!
//! Knows nothing of what is trained.

use anyhow::{Context, Result};
use protocol::Cx;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tch::Device;

/// How many complete checkpoints stay on disk: the newest, and one in case that is damaged.
const KEEP: usize = 2;

/// The checkpoints of one training.
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Those in a scratch folder.
    pub fn new(scratch: &Path) -> Checkpoints {
        Checkpoints { dir: scratch.to_path_buf() }
    }

    /// The steps there are checkpoints of, newest first.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let entries = std::fs::read_dir(&self.dir).with_context(|| format!("cannot list {}", self.dir.display()))?;
        let mut steps: Vec<u64> = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(step) = name.to_string_lossy().strip_prefix("step_").and_then(|step| step.parse().ok()) {
                steps.push(step);
            }
        }
        steps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    /// Resumes from the newest checkpoint that `load` takes; a damaged one is put aside for the one before it.
    ///
    /// Returns the number of steps done.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn resume(&self, mut load: impl FnMut(&Path) -> Result<()>, log: impl Fn(&str)) -> Result<u64> {
        for step in self.steps()? {
            let path = self.path(step);
            match load(&path) {
                Ok(()) => return Ok(step),
                Err(error) => {
                    log(&format!("checkpoint {} is not usable and set aside: {error:#}", path.display()));
                    std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
            }
        }
        Ok(0)
    }

    /// Ends a training whose loss, or the norm of whose gradients, is no number any more, before a checkpoint of it is
    /// written.
    ///
    /// # Errors
    /// See [`Checkpoints::diverged`].
    pub fn finite(&self, loss: f64, norms: &[f64], step: u64) -> Result<()> {
        if !loss.is_finite() {
            return Err(self.diverged(&format!("the loss is {loss}"), step));
        }
        match norms.iter().find(|norm| !norm.is_finite()) {
            Some(norm) => Err(self.diverged(&format!("the norm of a gradient is {norm}"), step)),
            None => Ok(()),
        }
    }

    /// An error that ends a training whose numbers have become useless; the checkpoints stay.
    pub fn diverged(&self, what: &str, step: u64) -> anyhow::Error {
        let kept = match self.steps().unwrap_or_default().first() {
            Some(kept) => format!("the checkpoint of step {kept} is kept"),
            None => "there is no checkpoint yet".into(),
        };
        anyhow::anyhow!(
            "{what} at step {step}: training has diverged and stops; {kept}\nhint: try a lower learning rate"
        )
    }

    /// Behind a step: a checkpoint where one is due, every so many steps or because the task should stop, and then the
    /// task stops.
    ///
    /// # Errors
    /// If a file cannot be written, or the task is to stop; it is begun again, and goes on from the checkpoint.
    pub fn after(
        &self,
        cx: &Cx<'_>,
        step: u64,
        (every, last): (u64, u64),
        save: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let stop = step < last && cx.should_stop();
        if step.is_multiple_of(every) || stop {
            self.save(step, save)?;
        }
        cx.stop_if(stop)
    }

    /// Writes the checkpoint of a step with `save`, and drops those that are older than the last few.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, step: u64, save: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let partial = self.dir.join("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?;
        }
        std::fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        save(&partial)?;
        let path = self.path(step);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::rename(&partial, &path).with_context(|| format!("cannot finish {}", path.display()))?;
        for old in self.steps()?.into_iter().skip(KEEP) {
            std::fs::remove_dir_all(self.path(old))?;
        }
        Ok(())
    }

    fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step_{step:06}"))
    }
}

/// A loss curve: a CSV with a column `step` and one for each term, a row every so many steps, each value the mean since
/// the row before.
#[derive(Clone, Debug, Default)]
pub struct LossCurve {
    text: String,
    every: u64,
    terms: usize,
    sums: Vec<f64>,
    count: usize,
    /// What a column more has in the next row, where there is one.
    seldom: Option<Option<f64>>,
}

impl LossCurve {
    /// A curve of these terms with about `points` rows over `steps` steps.
    pub fn new(terms: &[&str], steps: u64, points: u64) -> LossCurve {
        let text = format!("step,{}\n", terms.join(","));
        let (every, terms) = ((steps / points).max(1), terms.len());
        LossCurve { text, every, terms, sums: vec![0.0; terms], ..LossCurve::default() }
    }

    /// With a column more, of what is not known of every step.
    pub fn with_seldom(mut self, name: &str) -> LossCurve {
        self.text = format!("{},{name}\n", self.text.trim_end());
        self.seldom = Some(None);
        self
    }

    /// Whether it is time for what is seldom told: a step (counted from 1) completes each tenth row.
    pub fn asks(&self, step: u64) -> bool {
        self.seldom.is_some() && step.is_multiple_of(10 * self.every)
    }

    /// What the next row says in the column more.
    pub fn tell(&mut self, value: f64) {
        self.seldom = Some(Some(value));
    }

    /// Adds the terms of a step (counted from 1). Gives the means of a row that this completes.
    pub fn push(&mut self, step: u64, values: &[f64]) -> Option<Vec<f64>> {
        assert_eq!(values.len(), self.terms, "a value for each term");
        self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        self.count += 1;
        step.is_multiple_of(self.every).then(|| self.flush(step))
    }

    fn flush(&mut self, step: u64) -> Vec<f64> {
        let means: Vec<f64> = self.sums.iter().map(|sum| sum / self.count as f64).collect();
        let text: Vec<String> = means.iter().map(|mean| format!("{mean:.6}")).collect();
        let more = self.seldom.as_mut().map(|value| value.take().map_or(",".into(), |value| format!(",{value:.6}")));
        writeln!(self.text, "{step},{}{}", text.join(","), more.unwrap_or_default()).expect("writing to a string");
        self.sums.fill(0.0);
        self.count = 0;
        means
    }

    /// The last full row's first term; before there is one, its mean so far.
    pub fn last(&self) -> f64 {
        let last = self.text.lines().last().and_then(|line| line.split(',').nth(1)?.parse().ok());
        last.unwrap_or_else(|| self.sums.first().map_or(f64::NAN, |sum| sum / self.count as f64))
    }

    /// Writes the curve, and beside it what has come since the last full row, for [`LossCurve::restore`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let rest = serde_json::json!({"sums": self.sums, "count": self.count});
        std::fs::write(path.with_extension("rest.json"), rest.to_string())?;
        self.write(path)
    }

    /// Writes the curve as CSV.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Continues a curve that [`LossCurve::save`] wrote.
    ///
    /// # Errors
    /// If the files are missing or not of these terms.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let rest: serde_json::Value = serde_json::from_slice(&std::fs::read(path.with_extension("rest.json"))?)?;
        let sums: Vec<f64> = serde_json::from_value(rest["sums"].clone())?;
        anyhow::ensure!(
            text.lines().next() == self.text.lines().next() && sums.len() == self.terms,
            "the loss curve {} is of other terms",
            path.display()
        );
        (self.text, self.sums) = (text, sums);
        self.count = rest["count"].as_u64().context("count")? as usize;
        Ok(())
    }
}

/// How many replicas help a network on this device whose batches come in `parts`: one for each further thread, as long
/// as there are parts for them; none on a GPU, which is busy with one part.
pub fn helpers(device: Device, parts: usize, threads: usize) -> usize {
    if device.is_cuda() { 0 } else { parts.min(threads).max(1) - 1 }
}

/// The samples of a step: a function of seed and step, every sample once in each pass over the data.
pub fn batch(seed: u64, step: u64, size: usize, samples: usize) -> Vec<usize> {
    let (size, samples) = (size as u64, samples as u64);
    let mut order: Option<(u64, Vec<usize>)> = None;
    (step * size..(step + 1) * size)
        .map(|drawn| {
            let pass = drawn / samples;
            if order.as_ref().is_none_or(|(of, _)| *of != pass) {
                order = Some((pass, shuffled(seed, pass, samples as usize)));
            }
            order.as_ref().expect("it was just made").1[(drawn % samples) as usize]
        })
        .collect()
}

fn shuffled(seed: u64, pass: u64, n: usize) -> Vec<usize> {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(pass);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        // the bias of the remainder is below 2^-40 for any number of samples we could hold
        order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_every_sample_once() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| batch(7, step, 4, 10)).collect();
        seen[..10].sort_unstable();
        seen[10..].sort_unstable();
        let pass: Vec<usize> = (0..10).collect();
        assert_eq!((&seen[..10], &seen[10..]), (&pass[..], &pass[..]));
        assert_ne!(batch(7, 0, 10, 10), batch(8, 0, 10, 10));
    }

    #[test]
    fn numbers_that_are_none_end_a_training() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path());
        checkpoints.save(4, |path| Ok(std::fs::write(path.join("state"), "good")?)).unwrap();
        checkpoints.finite(0.5, &[1.0, 0.0], 5).unwrap();
        for (loss, norm, what) in [(f64::NAN, 1.0, "the loss is NaN"), (0.5, f64::INFINITY, "a gradient is inf")] {
            let error = checkpoints.finite(loss, &[1.0, norm], 5).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("at step 5") && error.contains("step 4 is kept"), "{error}");
        }
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path());
        for step in [10, 20, 30] {
            let text = if step == 30 { "broken" } else { "good" };
            checkpoints.save(step, |path| Ok(std::fs::write(path.join("state"), text)?)).unwrap();
        }
        assert_eq!(checkpoints.steps().unwrap(), [30, 20]);
        let load = |path: &Path| {
            anyhow::ensure!(std::fs::read_to_string(path.join("state"))? == "good", "bad");
            Ok(())
        };
        assert_eq!(checkpoints.resume(load, |_| ()).unwrap(), 20);
    }

    #[test]
    fn a_curve_continues_as_if_nothing_had_happened() {
        let path = std::env::temp_dir().join(format!("effigy-curve-{}.csv", std::process::id()));
        let mut whole = LossCurve::new(&["loss"], 40, 10);
        let mut first = whole.clone();
        (1..=40).for_each(|step| drop(whole.push(step, &[step as f64])));
        (1..=18).for_each(|step| drop(first.push(step, &[step as f64])));
        first.save(&path).unwrap();
        let mut second = LossCurve::new(&["loss"], 40, 10);
        second.restore(&path).unwrap();
        (19..=40).for_each(|step| drop(second.push(step, &[step as f64])));
        assert_eq!(second.text, whole.text);
        assert_eq!(whole.last(), 38.5);
        std::fs::remove_file(path.with_extension("rest.json")).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
