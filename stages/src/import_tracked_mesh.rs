//! `import_tracked_mesh`: the mesh of a frame that the reference's NPHM tracking left, in the world.
//!
//! reads: tracked_mesh? (OpenCTM, NPHM units), tracked_canonical? (`arr_0: [V, 5]` u16), flame_rotation (intrinsic XYZ
//! Euler angles, radians), flame_translation (metres), flame_scale
//! writes: mesh (PLY with canonical coordinates, world metres; null where there is none)
//!
//! `source_nphm_tracking` lists the files, `source_nersemble_flame` the poses, by which the reference takes its meshes
//! to the world; a join brings them together. Meshes end where the head model does: the reference's cut of the throat
//! is not made. Knows no folders and no pictures.

use crate::common::faults::hinted;
use crate::common::tracked;
use anyhow::{Result, anyhow};
use datasets::nphm_tracking;
use geometry::pose::{FlamePose, transform_points};
use glam::DVec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("import_tracked_mesh", 1, Grain::Row)
        .doc("Takes a mesh of DiffusionAvatars' NPHM tracking to the world by the FLAME pose beside it.")
        .may_read([("tracked_mesh", Type::Blob), ("tracked_canonical", Type::Blob)])
        .reads([
            ("flame_rotation", Type::Floats(3)),
            ("flame_translation", Type::Floats(3)),
            ("flame_scale", Type::F64),
        ])
        .writes([("mesh", Type::Blob)])
        .memory_mb(200)
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(ImportTrackedMesh));

struct ImportTrackedMesh;

impl Stage for ImportTrackedMesh {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| import(unit, cx)).collect()
    }
}

fn import(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
    let row = unit.row();
    let (Some(mesh), Some(canonical)) = (row.maybe_path("tracked_mesh")?, row.maybe_path("tracked_canonical")?) else {
        cx.warn("there is no mesh, or none with canonical coordinates: the frame's `mesh` is null");
        return Ok(vec![OutRow::new()]);
    };
    let (mut mesh, canonical) = nphm_tracking::read_mesh(&mesh, &canonical).map_err(hinted)?;
    mesh.positions = transform_points(&pose(&row)?.nphm_to_world(), &mesh.positions);
    let to = cx.file(unit, "mesh.ply");
    tracked::write_mesh(&to, &mesh, &canonical)?;
    Ok(vec![OutRow::new().file("mesh", &to)])
}

/// The head's pose in the world.
fn pose(row: &Row<'_>) -> Result<FlamePose> {
    let of = |column: &str| -> Result<DVec3> {
        row.floats(column)?
            .try_into()
            .map(|values: [f64; 3]| values.into())
            .map_err(|_| anyhow!("`{column}` is not three numbers"))
    };
    Ok(FlamePose {
        rotation: of("flame_rotation")?,
        translation: of("flame_translation")?,
        scale: DVec3::splat(row.f64("flame_scale")?),
    })
}
