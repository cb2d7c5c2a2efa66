//! `contact_sheet`: rows of pictures to look at: truth, renders, every G-buffer channel, tracked mesh over the image.
//!
//! reads: sequence, camera, timestep, target, gbuffer, render; method?   writes: sheet (RGB PNG)
//!
//! One line of the sheet is one view, one column one picture of it: the truth, a render of each method, then the condition's
//! channels (depth, canonical xyz, normals, ambient, mask) and the tracked mesh drawn over the truth. Views are spread
//! evenly over what there is. Knows no scores.

use crate::common::drawing::{Anchor, WHITE, below, beside, plain, text, text_width};
use crate::common::gbuffers;
use crate::common::media::Image;
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

/// Height of the strip above a line that says which view it is, px.
const LABEL: usize = 18;
/// Heights of capitals in headings and labels, px.
const CAPITALS: (f64, f64) = (10.0, 9.0);
/// The colour of a view that a method has not rendered.
pub const NO_RENDER: [u8; 3] = [230; 3];

fn def() -> StageDef {
    StageDef::new("contact_sheet", 4, Grain::Whole)
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

/// A view: sequence, camera and timestep.
pub type View = (String, String, i64);

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

/// What a sheet shows.
pub struct Views<'a> {
    /// Views and their rows, one of each method that has it, spread evenly over what there is.
    pub spread: Vec<(View, Vec<Row<'a>>)>,
    /// The methods, in the order in which they come.
    pub methods: Vec<String>,
}

/// At most `lines` of the rows' views.
///
/// # Errors
/// If a row does not say what it shows.
pub fn spread(rows: Vec<Row<'_>>, lines: usize) -> Result<Views<'_>> {
    let mut views: BTreeMap<View, Vec<Row<'_>>> = BTreeMap::new();
    let mut methods: Vec<String> = Vec::new();
    for row in rows {
        let method = method_of(&row)?;
        if !methods.contains(&method) {
            methods.push(method);
        }
        views.entry((row.str("sequence")?, row.str("camera")?, row.i64("timestep")?)).or_default().push(row);
    }
    let all = views.len();
    let n = lines.clamp(1, all.max(1)).min(all);
    // the middles of n equal parts: neither always the first frame nor always the last
    let shown: Vec<usize> = (0..n).map(|i| (2 * i + 1) * all / (2 * n)).collect();
    let spread = views.into_iter().enumerate().filter(|(i, _)| shown.contains(i)).map(|(_, view)| view).collect();
    Ok(Views { spread, methods })
}

/// Whose render a row holds.
fn method_of(row: &Row<'_>) -> Result<String> {
    if row.has("method") { row.str("method") } else { Ok("render".into()) }
}

/// What a method made of the view of these rows; none if it has not rendered it.
///
/// # Errors
/// If the picture cannot be read.
pub fn render_of(rows: &[Row<'_>], method: &str) -> Result<Option<Image>> {
    for row in rows {
        if method_of(row)? == method {
            return Image::read(&row.path("render")?, 3).map(Some);
        }
    }
    Ok(None)
}

/// The strip above a sheet that names its columns, each `size` px wide. A name that is too long for its column is written smaller.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn heading(names: &[&str], size: usize) -> Result<Image> {
    let mut image = plain(size * names.len(), 22, WHITE);
    for (i, name) in names.iter().enumerate() {
        let room = size.saturating_sub(8) as f64 / text_width(name, CAPITALS.0)?.max(1) as f64;
        text(&mut image, name, (i * size + 4, 16), CAPITALS.0 * room.clamp(0.3, 1.0), Anchor::Left)?;
    }
    Ok(image)
}

/// The strip above a line that says which view it is.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn label((sequence, camera, timestep): &View, width: usize) -> Result<Image> {
    let mut name = plain(width, LABEL, WHITE);
    text(&mut name, &format!("{sequence} / {camera} / {timestep}"), (4, LABEL - 5), CAPITALS.1, Anchor::Left)?;
    Ok(name)
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
