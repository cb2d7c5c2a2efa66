//! `export_nersemble`: where extracted frames lie in DiffusionAvatars' data (layout D of NeRSemble), for `effigy export`.
//!
//! reads: participant, sequence, camera, timestep, image; matte?   writes: image_path, matte_path
//!
//! With `effigy import nersemble FOLDER --calibration-to DIR`, which writes the calibration, this lays a download out as
//! the reference code's data lie. Frames of `extract_frames` are colour-corrected and over white already, so no colour correction goes
//! along. Pictures and mattes are not touched: their size and format are those of `extract_frames` (the reference has JPEG, 1100 px wide, and mattes of
//! twice that width, which it shrinks). Its defaults also ask for colour corrections, face boxes and segmentation masks, which nothing here makes: its options
//! switch them off.

use anyhow::{Context, Result, ensure};
use datasets::nersemble;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("export_nersemble", 1, Grain::Row)
        .doc("Names the place of each frame in the layout of DiffusionAvatars' NeRSemble data.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str)])
        .reads([("timestep", Type::I64), ("image", Type::Blob)])
        .may_read([("matte", Type::Blob)])
        .writes([("image_path", Type::Str), ("matte_path", Type::Str)])
        .batch(256)
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(ExportNersemble));

struct ExportNersemble;

impl Stage for ExportNersemble {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(place).collect()
    }
}

fn place(unit: &Unit<'_>) -> Result<Rows> {
    let row = unit.row();
    let number = |column: &str| -> Result<u32> {
        let value = row.i64(column)?;
        u32::try_from(value).with_context(|| format!("column `{column}` holds {value}, expected a number from 0"))
    };
    let (participant, timestep) = (number("participant")?, number("timestep")?);
    let (sequence, camera, image) = (row.str("sequence")?, row.str("camera")?, row.path("image")?);
    for (column, name) in [("sequence", &sequence), ("camera", &camera)] {
        ensure!(
            !name.is_empty() && !name.contains(['/', '\\']),
            "column `{column}` holds `{name}`, which is no name of a file"
        );
    }
    let ending = image.extension().and_then(|ending| ending.to_str()).unwrap_or("png");
    let frame = nersemble::frame_folder(participant, &sequence, timestep);
    let out = OutRow::new().str("image_path", format!("{frame}/images-2x/cam_{camera}.{ending}"));
    Ok(vec![if row.has("matte") { out.str("matte_path", format!("{frame}/alpha_map/cam_{camera}.png")) } else { out }])
}
