//! `make_video`: the images of a group of rows as one H.264 video, in the order of their timesteps.
//!
//! reads: timestep, render, target?
//! writes: movie
//!
//! Truth, where there is one, stands on the left of the render. Knows nothing of what the images show.

use crate::common::media::Image;
use crate::common::timesteps::in_time;
use crate::common::video::VideoWriter;
use anyhow::{Result, bail};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Frames a second.
    #[serde(default = "fps")]
    #[schemars(range(min = 0.01, max = 1000))]
    fps: f64,
    /// Every pixel becomes a square of so many px: small renders are hard to watch.
    #[serde(default = "enlarge")]
    #[schemars(range(min = 1, max = 64))]
    enlarge: usize,
}

/// NeRSemble's 73 frames a second, every third taken.
fn fps() -> f64 {
    24.0
}

fn enlarge() -> usize {
    1
}

fn def() -> StageDef {
    StageDef::new("make_video", 2, Grain::Group)
        .doc("Joins the renders of a group into a video, beside the truth where there is one.")
        .reads([("timestep", Type::I64), ("render", Type::Blob)])
        .may_read([("target", Type::Blob)])
        .writes([("movie", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(MakeVideo { params }));

struct MakeVideo {
    params: Params,
}

impl Stage for MakeVideo {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.join(unit, cx)).collect()
    }
}

impl MakeVideo {
    fn join(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let order = in_time(&rows)?;
        let path = cx.file(unit, "movie.mp4");
        let mut video = VideoWriter::new(&path, self.params.fps, order.len())?;
        order.iter().try_for_each(|(_, i)| video.push(&self.frame(&rows[*i])?))?;
        video.finish()?;
        Ok(vec![OutRow::new().file("movie", &path)])
    }

    fn frame(&self, row: &Row<'_>) -> Result<Image> {
        let mut parts = Vec::new();
        if let Some(path) = row.maybe_path("target")? {
            parts.push(Image::read(&path, 3)?);
        }
        parts.push(Image::read(&row.path("render")?, 3)?);
        let scale = self.params.enlarge.max(1);
        let (height, width) = (parts[0].height, parts.iter().map(|part| part.width).sum::<usize>());
        if parts.iter().any(|part| part.height != height) {
            bail!("images of different heights cannot stand side by side in a video");
        }
        let mut data = Vec::with_capacity(width * height * 3 * scale * scale);
        for y in 0..height * scale {
            for part in &parts {
                for x in 0..part.width * scale {
                    let at = ((y / scale) * part.width + x / scale) * 3;
                    data.extend_from_slice(&part.data[at..at + 3]);
                }
            }
        }
        Ok(Image::new(width * scale, height * scale, 3, data))
    }
}
