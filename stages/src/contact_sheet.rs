//! `contact_sheet`: rows of pictures to look at: truth, renders, every G-buffer channel, tracked mesh over the image.
//!
//! reads: sequence, camera, timestep, target, gbuffer, render; method?   writes: sheet (RGB PNG)
//!
//! One line of the sheet is one view, one column one picture of it: the truth, a render of each method, then the condition's
//! channels (depth, canonical xyz, normals, ambient, mask) and the tracked mesh drawn over the truth. Views are spread
//! evenly over what there is. Knows no scores.

use crate::gbuffers;
use crate::media::Image;
use crate::drawing::{Anchor, WHITE, below, beside, plain, text};
use anyhow::Result;
use geometry::gbuffer::GBuffer;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Lines of the sheet.
    #[serde(default = "lines")]
    lines: usize,
    /// Every picture is enlarged to this width, px.
    #[serde(default = "picture")]
    picture: usize,
}

fn lines() -> usize {
    8
}
fn picture() -> usize {
    128
}

/// Height of the strip above a line that says which view it is, px.
const LABEL: usize = 15;

fn def() -> StageDef {
    StageDef::new("contact_sheet", 3, Grain::Whole)
        .doc("Truth, renders, G-buffer channels and mesh overlay of some views in one picture.")
        .reads([("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("target", Type::Blob), ("gbuffer", Type::Blob), ("render", Type::Blob)])
        .may_read([("method", Type::Str)])
        .writes([("sheet", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ContactSheet { params }));

struct ContactSheet {
    params: Params,
}

/// A view: what was filmed when and by which camera.
type View = (String, String, i64);

impl Stage for ContactSheet {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sheet(unit, cx)).collect()
    }
}

impl ContactSheet {
    fn sheet(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let mut views: BTreeMap<View, Vec<Row<'_>>> = BTreeMap::new();
        let mut methods: Vec<String> = Vec::new();
        for row in rows {
            let method = method_of(&row)?;
            if !methods.contains(&method) {
                methods.push(method);
            }
            let view = (row.str("sequence")?, row.str("camera")?, row.i64("timestep")?);
            views.entry(view).or_default().push(row);
        }
        let all: Vec<_> = views.into_iter().collect();
        let n = self.params.lines.clamp(1, all.len().max(1));
        let mut lines = vec![self.heading(&methods)?];
        for i in 0..n.min(all.len()) {
            // the middles of n equal parts: neither always the first frame nor always the last
            let (view, rows) = &all[(2 * i + 1) * all.len() / (2 * n)];
            lines.push(self.line(view, rows, &methods)?);
        }
        let path = cx.file(unit, "sheet.png");
        below(&lines).write_png(&path)?;
        Ok(vec![OutRow::new().file("sheet", &path)])
    }

    fn line(&self, view: &View, rows: &[Row<'_>], methods: &[String]) -> Result<Image> {
        let size = self.params.picture;
        let target = Image::read(&rows[0].path("target")?, 3)?;
        let gbuffer = gbuffers::read(&rows[0].path("gbuffer")?)?;
        let mut pictures = vec![target.clone()];
        for method in methods {
            let mut render = Image::new(target.width, target.height, 3, vec![230; target.data.len()]);
            for row in rows {
                if method_of(row)? == *method {
                    render = Image::read(&row.path("render")?, 3)?;
                }
            }
            pictures.push(render);
        }
        let span = gbuffers::depth_span([&gbuffer]);
        pictures.extend(gbuffers::pictures(&gbuffer, span));
        pictures.push(overlay(&target, &gbuffer)?);
        let line = beside(&pictures.iter().map(|picture| enlarge(picture, size)).collect::<Vec<_>>());
        let mut name = plain(line.width, LABEL, WHITE);
        text(&mut name, &format!("{} / {} / {}", view.0, view.1, view.2), (4, LABEL - 4), 7.0, Anchor::Left)?;
        Ok(below(&[name, line]))
    }

    fn heading(&self, methods: &[String]) -> Result<Image> {
        let size = self.params.picture;
        let names = ["truth"].into_iter().chain(methods.iter().map(String::as_str));
        let names: Vec<&str> = names.chain(gbuffers::CHANNELS).chain(["mesh"]).collect();
        let (width, height) = (size * names.len(), 20);
        let mut image = plain(width, height, WHITE);
        for (i, name) in names.iter().enumerate() {
            text(&mut image, name, (i * size + 4, 14), 8.0, Anchor::Left)?;
        }
        Ok(image)
    }
}

/// Whose render a row holds.
pub fn method_of(row: &Row<'_>) -> Result<String> {
    if row.has("method") { row.str("method") } else { Ok("render".into()) }
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

/// Every pixel a block, so that one sees what there is and not what a filter makes of it.
pub fn enlarge(image: &Image, size: usize) -> Image {
    let data = (0..size * size)
        .flat_map(|i| {
            let (x, y) = (i % size * image.width / size, i / size * image.height / size);
            let at = (y * image.width + x) * 3;
            [image.data[at], image.data[at + 1], image.data[at + 2]]
        })
        .collect();
    Image::new(size, size, 3, data)
}
