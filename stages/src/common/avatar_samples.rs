//! What an avatar is trained on: latents, G-buffers, codes, and what some losses need besides.
//!
//! No stage, but the way into `train_avatar` of the rows that it learns from and of those that it is only tried on.
//! Knows no network's inside.

use crate::common::avatar_description::Description;
use crate::common::avatar_parameters::Posterior;
use crate::common::gbuffers;
use crate::common::latents::read_posterior;
use crate::common::media::Image;
use crate::common::prior_training::{read_images, to_signed};
use anyhow::{Context, Result, ensure};
use geometry::gbuffer::GBuffer;
use models::avatar::{Batch, LossTerms};
use models::init;
use models::ldm::Draw;
use models::runtime;
use models::schedule::Schedule;
use models::vae::Vae;
use protocol::Row;
use rayon::prelude::*;
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// What G-buffers and latents of all samples may take in memory, bytes; more than that is read for each batch. A
/// quarter of what `train_avatar` asks for, networks and optimiser being the rest.
const HELD: usize = 1 << 30;

/// Samples of one table.
pub struct Samples {
    drawn: Drawn,
    /// `[C, h, w]` of a latent.
    latent: Vec<i64>,
    /// Whose maps each sample is looked up in.
    whose: Vec<usize>,
    /// Normalised, `[N, code]`.
    codes: Tensor,
    /// Deviation of the noise that is added to them in training.
    disturbance: f64,
    /// What of the latents' posteriors is learned.
    posterior: Posterior,
    /// Where the mouth is, bytes `[N, h, w]`.
    mouth: Option<Tensor>,
    /// Where the eyes are, bytes `[N, h, w]`.
    eyes: Option<Tensor>,
    colors: Option<Colors>,
}

/// Pictures.
enum Colors {
    /// Bytes `[N, 3, H, W]`.
    Held(Tensor),
    /// The file of each sample.
    Filed(Vec<PathBuf>),
}

impl Colors {
    /// Bytes `[n, 3, H, W]` of the samples at these places.
    fn at(&self, at: &[usize]) -> Result<Tensor> {
        match self {
            Colors::Held(all) => {
                Ok(all.index_select(0, &Tensor::from_slice(&at.iter().map(|&i| i as i64).collect::<Vec<_>>())))
            }
            Colors::Filed(paths) => read_images(&at.iter().map(|&i| paths[i].clone()).collect::<Vec<_>>()),
        }
    }
}

/// Latents and G-buffers.
enum Drawn {
    Held {
        /// Mean of each latent's posterior `[N, C, h, w]`, before it is scaled.
        means: Tensor,
        /// Its deviation.
        deviations: Tensor,
        gbuffers: Vec<GBuffer>,
    },
    /// The files of each sample: 48,000 of 512 px would take 0.5 TB.
    Filed(Vec<[PathBuf; 2]>),
}

impl Drawn {
    /// Latent and G-buffer of each sample, in memory if they, with `colors` a picture besides, take no more than `held`
    /// bytes: the first one tells what all take.
    fn of(files: Vec<[PathBuf; 2]>, colors: bool, held: usize) -> Result<Drawn> {
        let first = files.first().context("there are no rows to train on")?;
        let (latent, gbuffer) = (read_posterior(&first[0])?.mean.numel(), gbuffers::read(&first[1])?.mask.len());
        let pixel = GBuffer::PIXEL_BYTES + if colors { 3 } else { 0 };
        if files.len() * (2 * 4 * latent + pixel * gbuffer) > held {
            return Ok(Drawn::Filed(files));
        }
        let (means, deviations) = read_latents(&files)?;
        Ok(Drawn::Held { means, deviations, gbuffers: read_gbuffers(&files)? })
    }

    /// Means, deviations and G-buffers of the samples at these places.
    fn at(&self, at: &[usize]) -> Result<(Tensor, Tensor, Vec<GBuffer>)> {
        match self {
            Drawn::Held { means, deviations, gbuffers } => {
                let index = Tensor::from_slice(&at.iter().map(|&i| i as i64).collect::<Vec<_>>());
                let picked = at.iter().map(|&i| gbuffers[i].clone()).collect();
                Ok((means.index_select(0, &index), deviations.index_select(0, &index), picked))
            }
            Drawn::Filed(files) => {
                let files: Vec<[PathBuf; 2]> = at.iter().map(|&i| files[i].clone()).collect();
                let (means, deviations) = read_latents(&files)?;
                Ok((means, deviations, read_gbuffers(&files)?))
            }
        }
    }
}

impl Samples {
    /// Reads rows, and what the terms of the loss need of them.
    ///
    /// # Errors
    /// If there are none, a file is missing or damaged, or a column that a term needs, or if latents are not those of
    /// `vae` or G-buffers not of the size that the description's condition encoder takes to theirs.
    pub fn load(rows: &[Row<'_>], description: &Description, terms: &LossTerms, vae: &Vae) -> Result<Samples> {
        let files =
            rows.iter().map(|row| Ok([row.path("latent")?, row.path("gbuffer")?])).collect::<Result<Vec<_>>>()?;
        let drawn = Drawn::of(files, terms.colors > 0.0, HELD)?;
        let (first, _, gbuffer) = drawn.at(&[0])?;
        let latent = first.size()[1..].to_vec();
        let channels = vae.config().latent_channels;
        ensure!(
            latent[0] == channels,
            "the latents have {} channels, and those of the backbone's auto-encoder {channels}\n\
             hint: `encode_latents` has to have the backbone that the avatar has",
            latent[0]
        );
        let widths = description.encoder_widths();
        let [across, down] = [latent[2], latent[1]].map(|side| side << (widths - 1));
        let (width, height) = (gbuffer[0].width, gbuffer[0].height);
        ensure!(
            (i64::from(width), i64::from(height)) == (across, down),
            "the G-buffers are {width} x {height} px, expected {across} x {down}: latents are {} x {}, and a condition encoder of {widths} widths \
             halves G-buffers {} times\n\
             hint: `encoder_channels` needs one width more than the auto-encoder halves pictures (4 for Stable Diffusion), and `raster_gbuffer` \
             the `size` of `encode_latents`",
            latent[2],
            latent[1],
            widths - 1
        );
        let region = |weight: f64, name: &str| {
            (weight > 0.0).then(|| load_masks(rows, name, [latent[1], latent[2]])).transpose()
        };
        let (mouth, eyes) = (region(terms.mouth, "mouth")?, region(terms.eyes, "eyes")?);
        let is_held = matches!(drawn, Drawn::Held { .. });
        let colors = (terms.colors > 0.0).then(|| load_colors(rows, is_held)).transpose()?;
        if let Some(colors) = &colors {
            let size = colors.at(&[0])?.size();
            let (pictures, drawn) = (&size[2..], [i64::from(gbuffer[0].height), i64::from(gbuffer[0].width)]);
            ensure!(pictures == drawn, "pictures of {pictures:?} px and G-buffers of {drawn:?} px cannot be compared");
        }
        let (whose, codes) = (description.whose(rows)?, description.codes(rows)?);
        let disturbance = description.code_noise() * deviation(&codes);
        let posterior = description.posterior();
        Ok(Samples { drawn, latent, whose, codes, disturbance, posterior, mouth, eyes, colors })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.codes.size()[0] as usize
    }

    /// The samples at these places, their latents drawn from the posteriors, unless means are learned, and their codes
    /// disturbed: a function of `seed` and `step`.
    pub fn batch(&self, at: &[usize], vae: &Vae, schedule: &Schedule, (seed, step): (u64, u64)) -> Result<Batch> {
        let n = at.len() as i64;
        // other streams than the diffusion noise of the same step
        let size = [&[n], &self.latent[..]].concat();
        let noise = (self.posterior == Posterior::Sampled).then(|| init::normal(seed ^ 0x9057, step, &size));
        let mut batch = self.of(at, vae, schedule, noise, (seed, step))?;
        if self.disturbance > 0.0 {
            batch.codes += init::normal(seed ^ 0xC0DE, step, &batch.codes.size()) * self.disturbance;
        }
        Ok(batch)
    }

    /// All samples, their latents the posteriors' means; times and noise are functions of `seed`.
    pub fn all(&self, vae: &Vae, schedule: &Schedule, seed: u64) -> Result<Batch> {
        self.of(&(0..self.len()).collect::<Vec<_>>(), vae, schedule, None, (seed, 0))
    }

    fn of(
        &self,
        at: &[usize],
        vae: &Vae,
        schedule: &Schedule,
        noise: Option<Tensor>,
        draw: (u64, u64),
    ) -> Result<Batch> {
        let index = Tensor::from_slice(&at.iter().map(|&i| i as i64).collect::<Vec<_>>());
        let (mean, deviation, picked) = self.drawn.at(at)?;
        let latents = match noise {
            Some(noise) => &mean + deviation * noise,
            None => mean,
        };
        let latents = vae.scale(&latents.to_device(runtime::device()));
        let mut gbuffer = gbuffers::to_tensors(&picked)?;
        gbuffer.whose = at.iter().filter_map(|&i| self.whose.get(i).copied()).collect();
        Ok(Batch {
            draw: Draw::new(schedule, &latents.size(), draw.0, draw.1),
            latents,
            gbuffer,
            codes: self.codes.index_select(0, &index),
            mouth: self.mouth.as_ref().map(|mouth| shares(&mouth.index_select(0, &index))),
            eyes: self.eyes.as_ref().map(|eyes| shares(&eyes.index_select(0, &index))),
            colors: self
                .colors
                .as_ref()
                .map(|colors| Ok::<_, anyhow::Error>(to_signed(&colors.at(at)?)))
                .transpose()?,
        })
    }
}

/// Deviation of codes `[N, code]` from their mean, over all of their values.
fn deviation(codes: &Tensor) -> f64 {
    codes.var_dim([0i64].as_slice(), false, false).mean(Kind::Float).double_value(&[]).sqrt()
}

fn read_gbuffers(files: &[[PathBuf; 2]]) -> Result<Vec<GBuffer>> {
    files.par_iter().map(|[_, gbuffer]| gbuffers::read(gbuffer)).collect()
}

/// Posterior moments of samples, `[N, C, h, w]` each: mean and deviation.
fn read_latents(files: &[[PathBuf; 2]]) -> Result<(Tensor, Tensor)> {
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for [latent, _] in files {
        let posterior = read_posterior(latent)?;
        means.push(posterior.mean);
        deviations.push((posterior.logvar * 0.5).exp());
    }
    Ok((Tensor::f_stack(&means, 0)?, Tensor::f_stack(&deviations, 0)?))
}

/// Bytes to [0, 1].
fn shares(mask: &Tensor) -> Tensor {
    mask.to_kind(Kind::Float) / 255.0
}

/// Masks of a region at the latents' size, bytes `[N, h, w]`: every so many pixels one, as the reference does.
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
        let all = Tensor::from_slice(&image.data).view([height, width]);
        // a slice alone would keep the whole picture
        Ok(all.slice(0, 0, height, down).slice(1, 0, width, across).copy())
    };
    Ok(Tensor::stack(&rows.iter().map(mask).collect::<Result<Vec<_>>>()?, 0))
}

fn load_colors(rows: &[Row<'_>], is_held: bool) -> Result<Colors> {
    ensure!(
        rows.iter().all(|row| row.has("target")),
        "`color_weight` needs a column `target`, the pictures that encode_latents puts out"
    );
    let paths = rows.iter().map(|row| row.path("target")).collect::<Result<Vec<_>>>()?;
    Ok(if is_held { Colors::Held(read_images(&paths)?) } else { Colors::Filed(paths) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::arrays::{Array, Arrays, write_arrays};
    use half::f16;

    #[test]
    fn codes_deviate_by_what_all_their_values_do() {
        let codes = Tensor::from_slice(&[-3.0f32, 5.0, 0.0, 3.0, 5.0, 6.0]).view([2, 3]);
        assert!((deviation(&codes) - 6f64.sqrt()).abs() < 1e-6, "variances 9, 0 and 9");
    }

    #[test]
    fn what_is_too_much_for_memory_is_read_batch_by_batch() {
        let dir = std::env::temp_dir().join(format!("effigy-samples-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files: Vec<[PathBuf; 2]> = (0..3)
            .map(|k| {
                let [latent, gbuffer] = ["latent", "gbuffer"].map(|name| dir.join(format!("{k}.{name}")));
                let values = |from: f32| {
                    Array::of_f16(&[2, 1, 2], (0..4).map(move |i| f16::from_f32(from + k as f32 + i as f32)))
                };
                let arrays: Arrays = [("mean".into(), values(0.0)), ("logvar".into(), values(-6.0))].into();
                write_arrays(&latent, &arrays).unwrap();
                let pixel = |value: f32| value + k as f32 / 8.0;
                let drawn = GBuffer {
                    width: 2,
                    height: 1,
                    depth: vec![pixel(0.25); 2],
                    uv: vec![[pixel(0.5); 3]; 2],
                    normals: vec![[0.0, 0.0, 1.0]; 2],
                    ambient: vec![[pixel(0.125); 2]; 2],
                    mask: vec![true; 2],
                };
                gbuffers::write(&gbuffer, &drawn).unwrap();
                [latent, gbuffer]
            })
            .collect();
        let of = |held| Drawn::of(files.clone(), false, held).unwrap();
        let (held, filed) = (of(1 << 20), of(100));
        // 2 latents of 4 numbers and 2 pixels each: 3 bytes a pixel more decide
        let bytes = 3 * (2 * 4 * 4 + 2 * GBuffer::PIXEL_BYTES);
        assert!(matches!(of(bytes), Drawn::Held { .. }));
        assert!(matches!(Drawn::of(files.clone(), true, bytes).unwrap(), Drawn::Filed(_)));
        assert!(matches!((&held, &filed), (Drawn::Held { .. }, Drawn::Filed(_))));
        let (a, b) = (held.at(&[2, 0]).unwrap(), filed.at(&[2, 0]).unwrap());
        assert!(a.0 == b.0 && a.1 == b.1 && a.2 == b.2);
        let mean = f64::try_from(a.0.get(0).flatten(0, -1).get(0)).unwrap();
        assert!(mean == 2.0 && (a.2[1].depth[0] - 0.25).abs() < 1e-4, "the third and the first of them");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
