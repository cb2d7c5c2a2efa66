//! `contact_sheet`: rows of pictures to look at: truth, renders, every G-buffer channel, tracked mesh over the image.
//!
//! reads: sequence, camera, timestep, target, gbuffer, render; method?, participant?, crop?, split?
//! writes: sheet (RGB PNG)
//!
//! One line of the sheet is one view, one column one picture of it: the truth, a render of each method, then the
//! condition's channels (depth, canonical xyz, normals, ambient, mask) and the tracked mesh drawn over the truth. Each
//! split has as many lines as the others, its views spread evenly over what there is. Knows no scores.

use crate::common::drawing::{below, beside, plain};
use crate::common::gbuffers;
use crate::common::media::Image;
use crate::common::sheets::{self, NO_RENDER, Views, enlarge, heading, label, render_of, spread};
use anyhow::Result;
use geometry::gbuffer::GBuffer;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Lines of the sheet.
    #[serde(default = "lines")]
    #[schemars(range(min = 1))]
    lines: usize,
    /// Every picture is enlarged to this width, px.
    #[serde(default = "picture")]
    #[schemars(range(min = 16, max = 4096))]
    picture: usize,
}

fn lines() -> usize {
    8
}
fn picture() -> usize {
    128
}

fn def() -> StageDef {
    StageDef::new("contact_sheet", 6, Grain::Whole)
        .doc("Truth, renders, G-buffer channels and mesh overlay of some views in one picture.")
        .reads([("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("target", Type::Blob), ("gbuffer", Type::Blob), ("render", Type::Blob)])
        .may_read([("method", Type::Str)])
        .may_read(sheets::MAY_READ)
        .writes([("sheet", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ContactSheet { params }));

struct ContactSheet {
    params: Params,
}

impl Stage for ContactSheet {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sheet(unit, cx)).collect()
    }
}

impl ContactSheet {
    fn sheet(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let Views { spread, methods } = spread(unit.rows(), self.params.lines)?;
        let names = ["truth"].into_iter().chain(methods.iter().map(String::as_str));
        let names: Vec<&str> = names.chain(gbuffers::CHANNELS).chain(["mesh"]).collect();
        let mut lines = vec![heading(&names, self.params.picture)?];
        for (view, rows) in &spread {
            let line = self.line(rows, &methods)?;
            lines.extend([label(view, line.width)?, line]);
        }
        let path = cx.file(unit, "sheet.png");
        below(&lines).write_png(&path)?;
        Ok(vec![OutRow::new().file("sheet", &path)])
    }

    fn line(&self, rows: &[Row<'_>], methods: &[String]) -> Result<Image> {
        let target = Image::read(&rows[0].path("target")?, 3)?;
        let gbuffer = gbuffers::read(&rows[0].path("gbuffer")?)?;
        let mut pictures = vec![target.clone()];
        for method in methods {
            let none = || plain(target.width, target.height, NO_RENDER);
            pictures.push(render_of(rows, method)?.unwrap_or_else(none));
        }
        let span = gbuffers::depth_span(&gbuffer).unwrap_or_default();
        pictures.extend(gbuffers::pictures(&gbuffer, span));
        pictures.push(overlay(&target, &gbuffer)?);
        Ok(beside(&pictures.iter().map(|picture| enlarge(picture, self.params.picture)).collect::<Vec<_>>()))
    }
}

/// The mesh, shaded by its normals, half transparent over the image.
fn overlay(target: &Image, gbuffer: &GBuffer) -> Result<Image> {
    anyhow::ensure!(
        (target.width, target.height) == (gbuffer.width as usize, gbuffer.height as usize),
        "the target and its G-buffer are of different sizes"
    );
    let mut out = target.clone();
    for (i, pixel) in out.data.chunks_exact_mut(3).enumerate() {
        if gbuffer.mask[i] {
            let shade = 0.35 + 0.65 * gbuffer.normals[i][2].max(0.0);
            for (sample, tint) in pixel.iter_mut().zip([90.0, 190.0, 235.0]) {
                *sample = (0.45 * f32::from(*sample) + 0.55 * tint * shade) as u8;
            }
        }
    }
    Ok(out)
}
