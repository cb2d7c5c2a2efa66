//! How an avatar in training does on rows that it does not learn from: the error at fixed times and noise, PSNR of
//! pictures that it samples, and these pictures.
//!
//! No stage, but what `train_avatar` does every so many steps. Nothing that comes out of it goes back into training.

use crate::common::avatar_description::Description;
use crate::common::avatar_samples::Samples;
use crate::common::drawing::{Anchor, below, beside, plain, text};
use crate::common::event_file::EventFile;
use crate::common::latents::to_image;
use crate::common::media::Image;
use anyhow::{Context, Result};
use metrics::psnr::{mse, psnr};
use models::avatar::{Avatar, Batch, LossTerms};
use models::schedule::Sampler;
use models::vae::Vae;
use protocol::{Row, Table};
use std::fmt::Write as _;
use std::path::Path;

/// Largest side of a picture in the sheet, px; event files hold them as they are.
const SHOWN: usize = 128;
/// Pictures in a line of the sheet.
const IN_LINE: usize = 8;
/// Width of the words before a line, px.
const WORDS: usize = 52;
/// Samples whose error is computed at a time.
const TOGETHER: i64 = 4;

/// The rows to try, and what came of it so far.
pub struct Validation {
    batch: Batch,
    targets: Vec<Image>,
    sampling_steps: usize,
    seed: u64,
    /// CSV: step, loss, psnr.
    text: String,
    /// A line for each time, the targets first.
    sheet: Image,
}

impl Validation {
    /// At most `images` rows of a table, spread evenly.
    ///
    /// # Errors
    /// If it has none, a file is missing or damaged, or the schedule has fewer steps than a trial is to take.
    pub fn new(
        table: &Table,
        description: &Description,
        (vae, avatar): (&Vae, &Avatar),
        (images, sampling_steps, seed): (usize, usize, u64),
    ) -> Result<Validation> {
        let all: Vec<Row<'_>> = table.rows().collect();
        anyhow::ensure!(!all.is_empty() && images > 0, "there is nothing to validate on\nhint: leave `validation` out");
        let sampler = avatar.schedule.timesteps(Sampler::Ddpm, sampling_steps);
        sampler.map_err(|message| anyhow::anyhow!("`validation_steps`: {message}"))?;
        let n = images.min(all.len());
        let rows: Vec<Row<'_>> = (0..n).map(|k| all[(2 * k + 1) * all.len() / (2 * n)]).collect();
        let samples = Samples::load(&rows, description, &LossTerms::default(), vae)?;
        let batch = samples.all(vae, &avatar.schedule, seed ^ 0x7A11D)?;
        let targets = rows.iter().map(|row| Image::read(&row.path("target")?, 3)).collect::<Result<Vec<_>>>()?;
        let sheet = line("target", &targets)?;
        Ok(Validation { batch, targets, sampling_steps, seed, text: "step,loss,psnr\n".into(), sheet })
    }

    /// Tries the avatar as it is after `step` steps. `scratch` is a folder for what is in work.
    ///
    /// # Errors
    /// If a picture or an event cannot be written.
    pub fn run(
        &mut self,
        step: u64,
        (vae, avatar): (&Vae, &Avatar),
        events: &mut EventFile,
        scratch: &Path,
    ) -> Result<()> {
        let n = self.targets.len() as i64;
        let error = |from: i64| {
            let count = TOGETHER.min(n - from);
            avatar.error(&self.batch.narrow(from, count)) * count as f64
        };
        let loss = (0..n).step_by(TOGETHER as usize).map(error).sum::<f64>() / n as f64;
        let latents = avatar
            .sample(&self.batch.gbuffer, &self.batch.codes, Sampler::Ddpm, self.sampling_steps, self.seed)
            .map_err(anyhow::Error::msg)?;
        let decode =
            |i: i64| to_image(&tch::no_grad(|| vae.decode(&vae.unscale(&latents.narrow(0, i, 1)))).squeeze_dim(0));
        let pictures = (0..n).map(decode).collect::<Result<Vec<Image>>>()?;
        let each = pictures.iter().zip(&self.targets).map(|(picture, target)| {
            anyhow::ensure!(picture.data.len() == target.data.len(), "a sample and its target are of different sizes");
            Ok(psnr(mse(&target.data, &picture.data)))
        });
        let mean = each.collect::<Result<Vec<f64>>>()?.iter().sum::<f64>() / n as f64;
        writeln!(self.text, "{step},{loss:.6},{mean:.4}").expect("writing to a string");
        events.scalar(step, "validation/loss", loss)?;
        events.scalar(step, "validation/psnr", mean)?;
        let file = scratch.join("picture.png");
        let mut show = |name: String, picture: &Image| -> Result<()> {
            picture.write_png(&file)?;
            let png = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            events.picture(step, &name, (picture.width, picture.height), &png)
        };
        // the first time has the targets beside it
        let first = self.text.lines().count() == 2;
        for (i, (picture, target)) in pictures.iter().zip(&self.targets).enumerate() {
            if first {
                show(format!("validation/{i}/target"), target)?;
            }
            show(format!("validation/{i}/sample"), picture)?;
        }
        self.sheet = below(&[self.sheet.clone(), line(&format!("{step}"), &pictures)?]);
        Ok(())
    }

    /// Writes curve and sheet into a folder, as `validation.csv` and `validation.png`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, csv: &Path, sheet: &Path) -> Result<()> {
        std::fs::write(csv, &self.text).with_context(|| format!("cannot write {}", csv.display()))?;
        self.sheet.write_png(sheet)
    }

    /// Goes on from what [`Validation::save`] wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn restore(&mut self, csv: &Path, sheet: &Path) -> Result<()> {
        let text = std::fs::read_to_string(csv).with_context(|| format!("cannot read {}", csv.display()))?;
        let sheet = Image::read(sheet, 3)?;
        anyhow::ensure!(sheet.width == self.sheet.width, "the sheet of validation is of another width");
        (self.text, self.sheet) = (text, sheet);
        Ok(())
    }
}

/// The first pictures side by side, with words before them.
fn line(words: &str, pictures: &[Image]) -> Result<Image> {
    let shown = pictures.iter().take(IN_LINE).map(|picture| {
        let side = picture.width.max(picture.height);
        let scale = |n: usize| if side > SHOWN { (n * SHOWN / side).max(1) } else { n };
        picture.resized(scale(picture.width), scale(picture.height))
    });
    let shown = shown.collect::<Result<Vec<_>>>()?;
    let mut before = plain(WORDS, shown[0].height, [255; 3]);
    let middle = before.height / 2 + 4;
    text(&mut before, words, (4, middle), 8.0, Anchor::Left)?;
    Ok(beside(&[vec![before], shown].concat()))
}
