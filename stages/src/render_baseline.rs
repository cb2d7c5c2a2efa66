//! `render_baseline`: two trivial answers, to stand beside every avatar: what it must beat to be worth anything.
//!
//! reads: participant, world_to_cam, gbuffer; with train (participant, camera, crop, world_to_cam, gbuffer, target)
//! writes: render (RGB PNG)
//!
//! `mean`: the mean of the training images of the training camera nearest to the wanted one. `nearest`: the training
//! image whose G-buffer is most like the wanted one (mean absolute difference of the nine raw channels, inside either
//! mask, over blocks, 16 along the longer side). Only evaluation crops of the same participant take part. No network.

use crate::common::gbuffers;
use crate::common::media::Image;
use anyhow::{Context, Result, bail};
use geometry::Camera;
use geometry::gbuffer::GBuffer;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Which answer.
    method: Method,
}

/// A trivial answer.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// The mean training image of the nearest camera.
    Mean,
    /// The training image with the most similar G-buffer.
    Nearest,
}

fn def() -> StageDef {
    let train = [
        ("participant", Type::I64),
        ("camera", Type::Str),
        ("crop", Type::I64),
        ("world_to_cam", Type::Floats(16)),
        ("gbuffer", Type::Blob),
        ("target", Type::Blob),
    ];
    StageDef::new("render_baseline", 3, Grain::Row)
        .doc("Answers with the mean training image of the nearest camera, or the nearest training image.")
        .reads([("participant", Type::I64), ("world_to_cam", Type::Floats(16)), ("gbuffer", Type::Blob)])
        .with("train", train)
        .writes([("render", Type::Blob)])
        .batch(64)
        .threads(0)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let rows: Vec<Row<'_>> = cx.with("train")?.rows().collect();
    let mut shots = Vec::new();
    for row in rows {
        if row.i64("crop")? == 0 {
            shots.push(Shot::read(&row)?);
        }
    }
    if let Method::Nearest = params.method {
        let learn = |shot: &mut Shot| {
            shot.features = features_of(&gbuffers::read(&shot.gbuffer)?);
            anyhow::Ok(())
        };
        shots.par_iter_mut().try_for_each(learn)?;
    }
    anyhow::ensure!(!shots.is_empty(), "`train` has no evaluation crops (rows with crop 0)");
    anyhow::Ok(RenderBaseline { method: params.method, shots, means: BTreeMap::new() })
});

struct RenderBaseline {
    method: Method,
    shots: Vec<Shot>,
    /// Mean image by participant and camera.
    means: BTreeMap<(i64, String), Image>,
}

/// A training image.
struct Shot {
    participant: i64,
    camera: String,
    center: glam::DVec3,
    target: PathBuf,
    gbuffer: PathBuf,
    /// Only where G-buffers are compared.
    features: Vec<[f32; 10]>,
}

/// Blocks along the longer side of a G-buffer that is compared: those of all training images have to fit into memory.
const BLOCKS: usize = 16;

impl Shot {
    fn read(row: &Row<'_>) -> Result<Shot> {
        Ok(Shot {
            participant: row.i64("participant")?,
            camera: row.str("camera")?,
            center: center_of(row)?,
            target: row.path("target")?,
            gbuffer: row.path("gbuffer")?,
            features: Vec::new(),
        })
    }
}

fn center_of(row: &Row<'_>) -> Result<glam::DVec3> {
    // only the pose matters here
    let k = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    Ok(Camera::from_row_major(&k, &row.array("world_to_cam")?, 1, 1).center())
}

/// Block means of the nine raw channels, and the share of the block that is covered.
fn features_of(gbuffer: &GBuffer) -> Vec<[f32; 10]> {
    let (w, h) = (gbuffer.width as usize, gbuffer.height as usize);
    let input = gbuffer.network_input();
    let coarser = w.max(h).div_ceil(BLOCKS).max(1);
    let (columns, rows) = (w.div_ceil(coarser), h.div_ceil(coarser));
    let mut features = vec![[0.0; 10]; columns * rows];
    let mut counts = vec![0.0f32; columns * rows];
    for y in 0..h {
        for x in 0..w {
            let block = y / coarser * columns + x / coarser;
            counts[block] += 1.0;
            for c in 0..9 {
                features[block][c] += input[c * w * h + y * w + x];
            }
            features[block][9] += f32::from(gbuffer.mask[y * w + x]);
        }
    }
    features.iter_mut().zip(counts).for_each(|(block, n)| block.iter_mut().for_each(|value| *value /= n));
    features
}

fn difference(a: &[[f32; 10]], b: &[[f32; 10]]) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        if a[9] > 0.0 || b[9] > 0.0 {
            sum += a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
            count += 1.0;
        }
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

impl Stage for RenderBaseline {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units
            .iter()
            .map(|unit| {
                let row = unit.row();
                let image = match self.method {
                    Method::Mean => self.mean(&row)?,
                    Method::Nearest => self.nearest(&row)?,
                };
                let path = cx.file(unit, "render.png");
                image.write_png(&path)?;
                Ok(vec![OutRow::new().file("render", &path)])
            })
            .collect()
    }
}

impl RenderBaseline {
    fn candidates(&self, participant: i64) -> Result<Vec<&Shot>> {
        let shots: Vec<&Shot> = self.shots.iter().filter(|shot| shot.participant == participant).collect();
        if shots.is_empty() {
            bail!("`train` has no image of participant {participant}");
        }
        Ok(shots)
    }

    fn nearest(&self, row: &Row<'_>) -> Result<Image> {
        let wanted = features_of(&gbuffers::read(&row.path("gbuffer")?)?);
        let candidates = self.candidates(row.i64("participant")?)?;
        let differences: Vec<f32> = candidates.par_iter().map(|shot| difference(&wanted, &shot.features)).collect();
        let best = (0..candidates.len()).min_by(|&a, &b| differences[a].total_cmp(&differences[b]));
        Image::read(&candidates[best.context("there are candidates")?].target, 3)
    }

    fn mean(&mut self, row: &Row<'_>) -> Result<Image> {
        let (participant, center) = (row.i64("participant")?, center_of(row)?);
        let candidates = self.candidates(participant)?;
        let camera = candidates
            .iter()
            .min_by(|a, b| a.center.distance(center).total_cmp(&b.center.distance(center)))
            .map(|shot| shot.camera.clone())
            .context("there are candidates")?;
        if let Some(image) = self.means.get(&(participant, camera.clone())) {
            return Ok(image.clone());
        }
        let (mut sums, mut size, mut n) = (Vec::new(), None, 0u64);
        for shot in candidates.into_iter().filter(|shot| shot.camera == camera) {
            let image = Image::read(&shot.target, 3)?;
            let (width, height) = *size.get_or_insert((image.width, image.height));
            anyhow::ensure!((image.width, image.height) == (width, height), "training images are of different sizes");
            sums.resize(image.data.len(), 0u64);
            sums.iter_mut().zip(&image.data).for_each(|(sum, &value)| *sum += u64::from(value));
            n += 1;
        }
        let (width, height) = size.context("the nearest camera has an image")?;
        let data = sums.into_iter().map(|sum| ((sum + n / 2) / n) as u8).collect();
        let mean = Image::new(width, height, 3, data);
        self.means.insert((participant, camera), mean.clone());
        Ok(mean)
    }
}
