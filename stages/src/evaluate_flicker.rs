//! `evaluate_flicker`: how much a film flickers: what of each picture differs from the one before, the head's motion
//! taken out.
//!
//! reads: timestep, render, gbuffer?, target?
//! writes: flicker, flicker_target, flicker_share, flow_error, flow_error_target, flow_share
//!
//! A group is a film. `flicker` is the mean absolute difference in levels of 255 between a picture and the one before
//! it (by timestep) at the places of the canonical head that both show (`metrics::flicker`), `flicker_share` the share
//! of the head's pixels that these are, and `flicker_target` the same of the truth where there is one: what light,
//! moving over a turning head, and a coarse picture come to by themselves. `flow_error` and the others are the same
//! along optical flow (`metrics::flow_error`), found in the truth where there is one and else in the renders
//! themselves: they see hair and shoulders too, and what flow at this size cannot follow. The white background is left
//! out. Nulls for the first picture, and where nothing was seen twice; without G-buffers the first three are null.
//! Reads no cameras.

use crate::common::flow::flow;
use crate::common::gbuffers;
use crate::common::media::Image;
use crate::common::timesteps::in_time;
use anyhow::{Context, Result, ensure};
use geometry::gbuffer::GBuffer;
use manifests::{Type, Value};
use metrics::flicker::{Flicker, flow_error, warping_error};
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// A pixel all of whose values are at least this is background.
const WHITE: u8 = 250;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("evaluate_flicker", 3, Grain::Group)
        .doc("Difference of each picture of a film from the one before, where both show the same place of the head.")
        .reads([("timestep", Type::I64), ("render", Type::Blob)])
        .may_read([("gbuffer", Type::Blob), ("target", Type::Blob)])
        .writes([("flicker", Type::F64), ("flicker_target", Type::F64), ("flicker_share", Type::F64)])
        .writes([("flow_error", Type::F64), ("flow_error_target", Type::F64), ("flow_share", Type::F64)])
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(EvaluateFlicker));

struct EvaluateFlicker;

impl Stage for EvaluateFlicker {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| score(unit, cx)).collect()
    }
}

/// A picture of the film.
struct Shown {
    render: Image,
    target: Option<Image>,
    surface: Option<GBuffer>,
}

impl Shown {
    fn read(row: &Row<'_>) -> Result<Shown> {
        let surface = row.maybe_path("gbuffer")?.map(|path| gbuffers::read(&path)).transpose()?;
        let path = row.path("render")?;
        let render = Image::read(&path, 3)?;
        let (width, height) = (render.width, render.height);
        let fits = |what: &str, found: (usize, usize)| -> Result<()> {
            ensure!(
                found == (width, height),
                "{} is {width} x {height} px, its {what} {} x {}",
                path.display(),
                found.0,
                found.1
            );
            Ok(())
        };
        if let Some(surface) = &surface {
            fits("G-buffer", (surface.width as usize, surface.height as usize))?;
        }
        let target = row.maybe_path("target")?.map(|path| Image::read(&path, 3)).transpose()?;
        if let Some(target) = &target {
            fits("target", (target.width, target.height))?;
        }
        Ok(Shown { render, target, surface })
    }
}

fn score(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
    let rows = unit.rows();
    let order = in_time(&rows)?;
    let mut before: Option<Shown> = None;
    let mut out = Rows::new();
    for (timestep, i) in order.iter().copied() {
        let now = Shown::read(&rows[i]).with_context(|| format!("timestep {timestep}"))?;
        let (mut render, mut target, mut flowing) = (None, None, [None; 2]);
        if let Some(before) = &before {
            let surfaces = before.surface.as_ref().zip(now.surface.as_ref());
            let error =
                |a: &Image, b: &Image| surfaces.and_then(|(old, new)| warping_error((&a.data, old), (&b.data, new)));
            render = error(&before.render, &now.render);
            target = before.target.as_ref().zip(now.target.as_ref()).and_then(|(a, b)| error(a, b));
            flowing = along_flow(before, &now)?;
        }
        let value = |found: Option<Flicker>, of: fn(Flicker) -> f64| found.map_or(Value::Null, |f| Value::F64(of(f)));
        let row = OutRow::of(i)
            .set("flicker", value(render, |f| f.error))
            .set("flicker_target", value(target, |f| f.error))
            .set("flicker_share", value(render, |f| f.share))
            .set("flow_error", value(flowing[0], |f| f.error))
            .set("flow_error_target", value(flowing[1], |f| f.error))
            .set("flow_share", value(flowing[0], |f| f.share));
        out.push(row);
        before = Some(now);
        cx.progress(out.len(), order.len(), "");
    }
    Ok(out)
}

/// The errors of render and truth along flow.
fn along_flow(before: &Shown, now: &Shown) -> Result<[Option<Flicker>; 2]> {
    let (a, b) = match (&before.target, &now.target) {
        (Some(a), Some(b)) => (a, b),
        _ => (&before.render, &now.render),
    };
    let ways = (flow(b, a)?, flow(a, b)?);
    let shown: Vec<bool> = b.data.chunks(3).map(|pixel| pixel.iter().any(|value| *value < WHITE)).collect();
    let error = |a: &Image, b: &Image| flow_error((&a.data, &b.data), b.width, &shown, (&ways.0, &ways.1));
    let target = before.target.as_ref().zip(now.target.as_ref()).and_then(|(a, b)| error(a, b));
    Ok([error(&before.render, &now.render), target])
}
