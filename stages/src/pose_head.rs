//! `pose_head`: the surface of a person's head under an expression code and a pose, as `track_head` extracts it,
//! without anything to track.
//!
//! reads: expression, pose; with head_model, person
//! writes: mesh (PLY, world frame, with canonical coordinates)
//!
//! A row is a unit. The viewer of `effigy serve` asks for it, pose by pose. Knows no images and no clouds.

use crate::common::head_models::{self, Person};
use crate::common::tracked;
use anyhow::{Context, Result, ensure};
use manifests::Type;
use models::nphm::field::HeadModel;
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Grid points on a side of the coarse grid on which the surface is sought.
    #[serde(default = "coarse")]
    #[schemars(range(min = 2, max = 512))]
    coarse: usize,
    /// How often the grid is halved around the surface.
    #[serde(default = "levels")]
    #[schemars(range(max = 5))]
    levels: u32,
}

fn coarse() -> usize {
    25
}
fn levels() -> u32 {
    2
}

fn def() -> StageDef {
    StageDef::new("pose_head", 3, Grain::Row)
        .doc("Extracts the surface of a person's head under expression codes and poses.")
        .reads([("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .with("head_model", head_models::COLUMNS)
        .with("person", [("person", Type::Blob)])
        .writes([("mesh", Type::Blob)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    head_models::check_grid(params.coarse, params.levels)?;
    let model = head_models::read(cx.with("head_model")?)?;
    anyhow::Ok(PoseHead { params, model, person: Person::of(cx)? })
});

struct PoseHead {
    params: Params,
    model: HeadModel,
    person: Person,
}

impl Stage for PoseHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.pose(unit, cx)).collect()
    }
}

impl PoseHead {
    fn pose(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let code: Vec<f32> = row.floats("expression")?.into_iter().map(|value| value as f32).collect();
        let expected = self.model.config.deformation.d_ex as usize;
        ensure!(
            code.len() == expected,
            "column `expression` holds {} numbers, the head model's codes have {expected}\nhint: take codes that were tracked with this head model",
            code.len()
        );
        ensure!(code.iter().all(|value| value.is_finite()), "column `expression` holds a number that is none");
        let [a, b, c, x, y, z] = row.array::<6>("pose")?;
        let pose = Pose { rotation: [a, b, c], translation: [x, y, z] };
        let p = &self.params;
        let (mesh, canonical) = head_models::posed(&self.model, &self.person, &code, &pose, p.coarse, p.levels)
            .context("is this code far outside of what was tracked?")?;
        let path = cx.file(unit, "head.ply");
        tracked::write_mesh(&path, &mesh, &canonical)?;
        Ok(vec![OutRow::new().file("mesh", &path)])
    }
}
