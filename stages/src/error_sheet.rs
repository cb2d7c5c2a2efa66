//! `error_sheet`: truth, render and where they differ, in one picture.
//!
//! reads: target, render, method?, sequence, camera, timestep, participant?, crop?, split? (all rows at once)
//! writes: sheet (PNG)
//!
//! A line per view, as many of each split, spread evenly over the views there are: the truth, then each method's render
//! and the map of its error: mean absolute difference over red, green and blue, values in [0, 1], in turbo from 0 to
//! `full`. The scale is a parameter and not that of the pictures, so that sheets of two runs can be laid side by side.
//! The number in a map's corner is its mean (L1). Knows no masks.

use crate::common::drawing::{Anchor, WHITE, below, beside, color_bar, place, plain, text, turbo};
use crate::common::media::Image;
use crate::common::sheets::{self, NO_RENDER, Views, enlarge, heading, label, render_of, spread};
use anyhow::{Result, ensure};
use manifests::Type;
use metrics::psnr::l1;
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
    /// The error that has the last colour.
    #[serde(default = "full")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    full: f64,
}

fn lines() -> usize {
    6
}
fn picture() -> usize {
    148
}
fn full() -> f64 {
    0.5
}

fn def() -> StageDef {
    StageDef::new("error_sheet", 4, Grain::Whole)
        .doc("Truth, renders and maps of their absolute error, of some views in one picture.")
        .reads([("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("target", Type::Blob), ("render", Type::Blob)])
        .may_read([("method", Type::Str)])
        .may_read(sheets::MAY_READ)
        .writes([("sheet", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ErrorSheet { params }));

struct ErrorSheet {
    params: Params,
}

impl Stage for ErrorSheet {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sheet(unit, cx)).collect()
    }
}

impl ErrorSheet {
    fn sheet(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let Views { spread, methods } = spread(unit.rows(), self.params.lines)?;
        let names = methods.iter().flat_map(|method| [method.as_str(), "error"]);
        let names: Vec<&str> = std::iter::once("truth").chain(names).collect();
        let mut lines = vec![heading(&names, self.params.picture)?];
        for (view, rows) in &spread {
            let line = self.line(rows, &methods)?;
            lines.extend([label(view, line.width)?, line]);
        }
        let width = lines[0].width;
        lines.push(plain(width, 10, WHITE));
        let bar =
            color_bar(width.min(460), self.params.full, "mean absolute difference of red, green and blue", turbo)?;
        let mut foot = plain(width, bar.height, WHITE);
        place(&mut foot, &bar, 0, 0);
        lines.push(foot);
        let path = cx.file(unit, "sheet.png");
        below(&lines).write_png(&path)?;
        Ok(vec![OutRow::new().file("sheet", &path)])
    }

    fn line(&self, rows: &[Row<'_>], methods: &[String]) -> Result<Image> {
        let size = self.params.picture;
        let target = Image::read(&rows[0].path("target")?, 3)?;
        let mut pictures = vec![enlarge(&target, size)];
        for method in methods {
            match render_of(rows, method)? {
                Some(render) => pictures.extend([enlarge(&render, size), self.map(&target, &render)?]),
                None => pictures.extend([plain(size, size, NO_RENDER), plain(size, size, NO_RENDER)]),
            }
        }
        Ok(beside(&pictures))
    }

    /// Where two pictures differ.
    fn map(&self, target: &Image, render: &Image) -> Result<Image> {
        let sizes = [target, render].map(|image| (image.width, image.height));
        ensure!(
            sizes[0] == sizes[1],
            "the render is {} x {} px, the target {} x {}",
            sizes[1].0,
            sizes[1].1,
            sizes[0].0,
            sizes[0].1
        );
        let pairs = target.data.chunks_exact(3).zip(render.data.chunks_exact(3));
        let error = |(a, b): (&[u8], &[u8])| l1(a, b) / self.params.full;
        let values: Vec<f32> = pairs.map(|pair| error(pair) as f32).collect();
        let colors = turbo(&values)?.into_iter().flatten().collect();
        let mut map = enlarge(&Image::new(target.width, target.height, 3, colors), self.params.picture);
        let number = format!("{:.3}", l1(&target.data, &render.data));
        let mut label = plain(40, 13, WHITE);
        text(&mut label, &number, (20, 10), 7.0, Anchor::Middle)?;
        place(&mut map, &label, self.params.picture.saturating_sub(40), 0);
        Ok(map)
    }
}
