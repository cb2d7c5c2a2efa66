//! `draw_conditions`: what the networks were given, as pictures for `make_video`, beside what they made of it.
//!
//! reads: gbuffer, render?   writes: channel, render (RGB PNG)
//!
//! Each row becomes several, one a channel: `render` if there is one, then depth, canonical coordinates, normals, ambient coordinates and mask,
//! the picture in the column `render`. A group is a film: its depths share one scale, so that grey stands for one distance in all of it. Knows no cameras and no truth.

use crate::gbuffers::{self, CHANNELS};
use anyhow::Result;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("draw_conditions", 1, Grain::Group)
        .doc("Draws each channel of the G-buffers of a film, with one scale of depth for all of it.")
        .reads([("gbuffer", Type::Blob)])
        .may_read([("render", Type::Blob)])
        .writes([("channel", Type::Str), ("render", Type::Blob)])
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(DrawConditions));

struct DrawConditions;

impl Stage for DrawConditions {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| draw(unit, cx)).collect()
    }
}

fn draw(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
    let rows = unit.rows();
    let gbuffers = rows.iter().map(|row| gbuffers::read(&row.path("gbuffer")?)).collect::<Result<Vec<_>>>()?;
    let span = gbuffers::depth_span(&gbuffers);
    let mut out = Rows::new();
    for (i, (row, gbuffer)) in rows.iter().zip(&gbuffers).enumerate() {
        if let Some(render) = row.maybe_path("render")? {
            // a file that a unit puts out lies in its own folder
            let path = cx.file(unit, &format!("{i:05}-render.png"));
            std::fs::copy(&render, &path)?;
            out.push(OutRow::of(i).str("channel", "render").file("render", &path));
        }
        for (channel, picture) in CHANNELS.into_iter().zip(gbuffers::pictures(gbuffer, span)) {
            let path = cx.file(unit, &format!("{i:05}-{channel}.png"));
            picture.write_png(&path)?;
            out.push(OutRow::of(i).str("channel", channel).file("render", &path));
        }
    }
    Ok(out)
}
