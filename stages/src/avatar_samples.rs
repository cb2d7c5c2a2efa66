//! What an avatar is trained on, in memory: latents, G-buffers, codes, and what some losses need besides.
//!
//! No stage, but the way into `train_avatar` of the rows that it learns from and of those that it is only tried on. Knows no
//! network's inside.

use crate::gbuffers;
use crate::encode_latents::read_posterior;
use crate::media::Image;
use crate::avatar_description::Description;
use crate::train_vae::{load_images, to_signed};
use anyhow::{Context, Result, ensure};
use geometry::gbuffer::GBuffer;
use models::avatar::{Batch, LossTerms};
use models::init;
use models::ldm::Draw;
use models::runtime;
use models::schedule::Schedule;
use models::vae::Vae;
use protocol::Row;
use tch::{Kind, Tensor};

/// Samples of one table.
pub struct Samples {
    /// Mean of each latent's posterior `[N, C, h, w]`, before it is scaled.
    means: Tensor,
    /// Its deviation.
    deviations: Tensor,
    gbuffers: Vec<GBuffer>,
    /// Whose maps each sample is looked up in.
    whose: Vec<usize>,
    /// Normalised, `[N, code]`.
    codes: Tensor,
    /// Where the mouth is, `[N, h, w]`.
    mouth: Option<Tensor>,
    /// Where the eyes are, `[N, h, w]`.
    eyes: Option<Tensor>,
    /// Bytes `[N, 3, H, W]`.
    colors: Option<Tensor>,
}

impl Samples {
    /// Reads rows, and what the terms of the loss need of them.
    ///
    /// # Errors
    /// If there are none, a file is missing or damaged, or a column that a term needs.
    pub fn load(rows: &[Row<'_>], description: &Description, terms: &LossTerms) -> Result<Samples> {
        let (means, deviations) = load_latents(rows)?;
        let size = means.size();
        let region = |weight: f64, name: &str| (weight > 0.0).then(|| load_masks(rows, name, [size[2], size[3]])).transpose();
        let (mouth, eyes) = (region(terms.mouth, "mouth")?, region(terms.eyes, "eyes")?);
        let colors = (terms.colors > 0.0).then(|| load_colors(rows)).transpose()?;
        let gbuffers =
            rows.iter().map(|row| gbuffers::read(&row.path("gbuffer")?)).collect::<Result<Vec<GBuffer>>>()?;
        if let Some(colors) = &colors {
            let (pictures, drawn) = (&colors.size()[2..], [i64::from(gbuffers[0].height), i64::from(gbuffers[0].width)]);
            ensure!(pictures == drawn, "pictures of {pictures:?} px and G-buffers of {drawn:?} px cannot be compared");
        }
        let (whose, codes) = (description.whose(rows)?, description.codes(rows)?);
        Ok(Samples { means, deviations, gbuffers, whose, codes, mouth, eyes, colors })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.gbuffers.len()
    }

    /// The samples at these places, their latents drawn from the posteriors: a function of `seed` and `step`.
    pub fn batch(&self, at: &[usize], vae: &Vae, schedule: &Schedule, (seed, step): (u64, u64)) -> Result<Batch> {
        // another stream than the diffusion noise of the same step
        let size = [&[at.len() as i64], &self.means.size()[1..]].concat();
        self.of(at, vae, schedule, Some(init::normal(seed ^ 0x9057, step, &size)), (seed, step))
    }

    /// All samples, their latents the posteriors' means; times and noise are functions of `seed`.
    pub fn all(&self, vae: &Vae, schedule: &Schedule, seed: u64) -> Result<Batch> {
        self.of(&(0..self.len()).collect::<Vec<_>>(), vae, schedule, None, (seed, 0))
    }

    fn of(&self, at: &[usize], vae: &Vae, schedule: &Schedule, noise: Option<Tensor>, draw: (u64, u64)) -> Result<Batch> {
        let index = Tensor::from_slice(&at.iter().map(|&i| i as i64).collect::<Vec<_>>());
        let mean = self.means.index_select(0, &index);
        let latents = match noise {
            Some(noise) => &mean + self.deviations.index_select(0, &index) * noise,
            None => mean,
        };
        let latents = vae.scale(&latents.to_device(runtime::device()));
        let picked: Vec<GBuffer> = at.iter().map(|&i| self.gbuffers[i].clone()).collect();
        let mut gbuffer = gbuffers::to_tensors(&picked)?;
        gbuffer.whose = at.iter().filter_map(|&i| self.whose.get(i).copied()).collect();
        Ok(Batch {
            draw: Draw::new(schedule, &latents.size(), draw.0, draw.1),
            latents,
            gbuffer,
            codes: self.codes.index_select(0, &index),
            mouth: self.mouth.as_ref().map(|mouth| mouth.index_select(0, &index)),
            eyes: self.eyes.as_ref().map(|eyes| eyes.index_select(0, &index)),
            colors: self.colors.as_ref().map(|colors| to_signed(&colors.index_select(0, &index))),
        })
    }
}

/// Posterior moments of all samples, `[N, C, h, w]` each: mean and deviation.
fn load_latents(rows: &[Row<'_>]) -> Result<(Tensor, Tensor)> {
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for row in rows {
        let posterior = read_posterior(&row.path("latent")?)?;
        means.push(posterior.mean);
        deviations.push((posterior.logvar * 0.5).exp());
    }
    ensure!(!means.is_empty(), "there are no rows to train on");
    Ok((Tensor::f_stack(&means, 0)?, Tensor::f_stack(&deviations, 0)?))
}

/// Masks of a region at the latents' size, `[N, h, w]`: every so many pixels one, as the reference does.
fn load_masks(rows: &[Row<'_>], region: &str, [h, w]: [i64; 2]) -> Result<Tensor> {
    let mask = |row: &Row<'_>| -> Result<Tensor> {
        let path = row.maybe_path(&format!("{region}_mask"))?.with_context(|| {
            format!(
                "`{region}_weight` needs a column `{region}_mask`\nhint: `stage: mask_regions` makes it, from what `detect_landmarks` finds"
            )
        })?;
        let image = Image::read(&path, 1)?;
        let (height, width) = (image.height as i64, image.width as i64);
        let [down, across] = [height / h, width / w];
        ensure!(
            down >= 1 && (down * h, across * w) == (height, width),
            "{} is {width} x {height} px, no multiple of the latents' {w} x {h}",
            path.display()
        );
        let all = Tensor::from_slice(&image.data).view([height, width]).to_kind(Kind::Float) / 255.0;
        Ok(all.slice(0, 0, height, down).slice(1, 0, width, across))
    };
    Ok(Tensor::stack(&rows.iter().map(mask).collect::<Result<Vec<_>>>()?, 0))
}

fn load_colors(rows: &[Row<'_>]) -> Result<Tensor> {
    ensure!(
        rows.iter().all(|row| row.has("target")),
        "`color_weight` needs a column `target`, the pictures that encode_latents puts out"
    );
    load_images(rows, "target")
}
