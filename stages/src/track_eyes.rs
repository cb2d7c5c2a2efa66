//! `track_eyes`: where each eye looks, and how far its lids are open.
//!
//! reads: pose, eye_points3d, iris_views; with eyeballs
//! writes: eyes (six gaze values), lids, eyes_seen
//!
//! `eyes` are rotation vectors of the left and the right eye in the frame of the head, as FLAME's; `lids` shares of the
//! usual opening, left and right. `eyes_seen` is the number of irises that were seen: a closed eye goes with the other
//! one, two closed eyes look straight ahead, and so does everybody whose eyes `fit_eyes` did not find, with lids 1. A
//! moment knows nothing of its neighbours.

use crate::common::eyes::{Codes, Eyeballs, IRIS_VIEWS, Moment, TRIANGULATED};
use crate::fit_eyes;
use anyhow::{Context, Result};
use glam::DVec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("track_eyes", 1, Grain::Row)
        .doc("Tells gaze and lids of tracked heads.")
        .reads([("pose", Type::Floats(6)), TRIANGULATED, IRIS_VIEWS])
        .with("eyeballs", fit_eyes::COLUMNS)
        .writes([("eyes", Type::Floats(6)), ("lids", Type::Floats(2)), ("eyes_seen", Type::I64)])
        .batch(64)
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| {
    let row = cx.with("eyeballs")?.only().context("`eyeballs` is what fit_eyes puts out for one person")?;
    let eyeballs = if row.has("eyeballs") {
        let centers: [f64; 6] = row.array("eyeballs")?;
        Some(Eyeballs { centers: [0, 3].map(|at| DVec3::from_slice(&centers[at..])), open: row.array("lids_open")? })
    } else {
        None
    };
    anyhow::Ok(TrackEyes { eyeballs })
});

struct TrackEyes {
    eyeballs: Option<Eyeballs>,
}

impl Stage for TrackEyes {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let track = |unit: &Unit<'_>| -> Result<Rows> {
            let moment = Moment::read(&unit.row())?;
            let unknown = Codes { eyes: [0.0; 6], lids: [1.0; 2], seen: 0 };
            let codes = self.eyeballs.map_or(unknown, |eyeballs| eyeballs.codes(&moment));
            Ok(vec![OutRow::new().floats("eyes", codes.eyes).floats("lids", codes.lids).i64("eyes_seen", codes.seen)])
        };
        units.iter().map(track).collect()
    }
}
