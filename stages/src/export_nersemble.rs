//! `export_nersemble`: where extracted frames lie in DiffusionAvatars' data (layout D of NeRSemble), for `effigy
//! export`.
//!
//! reads: participant, sequence, camera, timestep, image; matte?
//! writes: image_path, matte (grey PNG), matte_path
//!
//! With `effigy import nersemble FOLDER --calibration-to DIR`, which writes the calibration, this lays a download out
//! as the reference code's data lie. Frames of `extract_frames` are colour-corrected already, so no colour correction
//! goes along; they have to come with `over_white: false`, because whoever reads this layout lays them over white.
//! Pictures are not touched: their size and format are those of `extract_frames` (the reference has JPEG, 1100 px
//! wide). Mattes become twice as large as the pictures: the reference halves them. Its defaults also ask for colour
//! corrections and face boxes, which `export_annotations` writes, and for segmentation masks, which nothing here makes:
//! its options switch them off.

use crate::common::media::Image;
use anyhow::{Context, Result, ensure};
use datasets::nersemble;
use manifests::{Type, Value};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("export_nersemble", 2, Grain::Row)
        .doc("Names the place of each frame in the layout of DiffusionAvatars' NeRSemble data.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str)])
        .reads([("timestep", Type::I64), ("image", Type::Blob)])
        .may_read([("matte", Type::Blob)])
        .writes([("image_path", Type::Str), ("matte", Type::Blob), ("matte_path", Type::Str)])
        .batch(256)
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(ExportNersemble));

struct ExportNersemble;

impl Stage for ExportNersemble {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| place(unit, cx)).collect()
    }
}

fn place(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
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
    let Some(matte) = row.maybe_path("matte")? else { return Ok(vec![out.set("matte", Value::Null)]) };
    let path = cx.file(unit, "matte.png");
    doubled(&Image::read(&matte, 1)?).write_png(&path)?;
    Ok(vec![out.file("matte", &path).str("matte_path", format!("{frame}/alpha_map/cam_{camera}.png"))])
}

/// Each pixel four times: halved by any filter over 2 x 2 px, it is the matte again.
fn doubled(matte: &Image) -> Image {
    let wide = |row: &[u8]| row.iter().flat_map(|&value| [value; 2]).collect::<Vec<u8>>();
    let data = matte.data.chunks_exact(matte.width).flat_map(|row| wide(row).repeat(2)).collect();
    Image::new(2 * matte.width, 2 * matte.height, 1, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matte_that_is_doubled_and_halved_is_as_it_was() {
        let matte = Image::new(3, 2, 1, vec![0, 7, 255, 128, 64, 1]);
        let doubled = doubled(&matte);
        assert_eq!((doubled.width, doubled.height), (6, 4));
        assert_eq!(doubled.data[..12], [0, 0, 7, 7, 255, 255, 0, 0, 7, 7, 255, 255]);
        assert_eq!(doubled.resized(3, 2).unwrap(), matte);
    }
}
