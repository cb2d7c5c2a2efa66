//! `fit_eyes`: where a person's eyeballs are in the head, and how far the lids are usually open.
//!
//! reads: pose, eye_points3d, iris_views
//! writes: eyeballs (x y z of the left centre, then of the right one; frame of the head, metres), lids_open (distance
//! of the lids' middles, left and right, metres)
//!
//! A group is all that is known of a person. Both are null, and the log says so, where eyes were found in too few
//! moments. See `eyes` for what is assumed.

use crate::common::eyes::{Eyeballs, IRIS_VIEWS, Moment, TRIANGULATED};
use anyhow::Result;
use manifests::{Type, Value};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Moments in which each eye has to be seen open.
    #[serde(default = "min_moments")]
    min_moments: usize,
}

fn min_moments() -> usize {
    5
}

/// What `track_eyes` takes.
pub const COLUMNS: [(&str, Type); 2] = [("eyeballs", Type::Floats(6)), ("lids_open", Type::Floats(2))];

fn def() -> StageDef {
    StageDef::new("fit_eyes", 1, Grain::Group)
        .doc("Fits a person's eyeballs to irises triangulated at several moments.")
        .reads([("pose", Type::Floats(6)), TRIANGULATED, IRIS_VIEWS])
        .writes(COLUMNS)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(FitEyes { params }));

struct FitEyes {
    params: Params,
}

impl Stage for FitEyes {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.fit(unit, cx)).collect()
    }
}

impl FitEyes {
    fn fit(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let moments = unit.rows().iter().map(Moment::read).collect::<Result<Vec<_>>>()?;
        let row = match Eyeballs::fit(&moments, self.params.min_moments) {
            Some(Eyeballs { centers, open }) => {
                OutRow::new().floats("eyeballs", centers.iter().flat_map(|c| c.to_array())).floats("lids_open", open)
            }
            None => {
                let found = |side: usize| moments.iter().filter(|m| m.irises[side].is_some()).count();
                cx.warn(&format!(
                    "of {} moments the left iris was found in {}, the right one in {}: that is too little, gaze and lids will not be tracked",
                    moments.len(),
                    found(0),
                    found(1)
                ));
                OutRow::new().set("eyeballs", Value::Null).set("lids_open", Value::Null)
            }
        };
        Ok(vec![row])
    }
}
