//! `export_tracking`: expression codes, canonical coordinates and meshes as the reference code keeps them, for
//! `effigy export`.
//!
//! reads: participant, sequence, timestep, mesh, expression, pose; with person
//! writes: ex_code, canonical (npz), local_mesh (OpenCTM), and of each its path in the layout, in a column `..._path`
//!
//! The mesh goes back to the head model's own space by the inverse of `x_world = R (s x / 4) + t`. The reference takes
//! it to the world by FLAME's rotation, scale and translation, a file for each sequence, which `export_flame` writes.
//! Knows no images and no cameras.

use crate::common::head_models::Person;
use crate::common::tracked;
use anyhow::{Context, Result};
use datasets::nphm_tracking::{Tracked, ctm, write_canonical, write_expression};
use geometry::Mesh;
use geometry::pose::{NPHM_PER_FLAME, rodrigues};
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
    StageDef::new("export_tracking", 1, Grain::Row)
        .doc("Writes expression codes, canonical coordinates and meshes as DiffusionAvatars' NPHM tracking.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .reads([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .with("person", [("person", Type::Blob)])
        .writes([("ex_code", Type::Blob), ("ex_code_path", Type::Str)])
        .writes([("canonical", Type::Blob), ("canonical_path", Type::Str)])
        .writes([("local_mesh", Type::Blob), ("local_mesh_path", Type::Str)])
        .batch(16)
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| {
    anyhow::Ok(ExportTracking { scale: Person::of(cx)?.scale })
});

struct ExportTracking {
    scale: f64,
}

impl Stage for ExportTracking {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.export(unit, cx)).collect()
    }
}

impl ExportTracking {
    fn export(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let number = |column: &str| -> Result<u32> {
            let value = row.i64(column)?;
            u32::try_from(value).with_context(|| format!("column `{column}` holds {value}, expected a number from 0"))
        };
        let frame = Tracked {
            participant: number("participant")?,
            sequence: row.str("sequence")?,
            timestep: number("timestep")?,
        };
        let (mesh, canonical) = tracked::read_mesh(&row.path("mesh")?)?;
        let code: Vec<f32> = row.floats("expression")?.into_iter().map(|value| value as f32).collect();
        let files = [cx.file(unit, "ex_code.npz"), cx.file(unit, "canonical.npz"), cx.file(unit, "local.CTM")];
        write_expression(&files[0], &code)?;
        write_canonical(&files[1], &canonical).with_context(|| {
            format!("the mesh of timestep {} reaches beyond what the layout can hold", frame.timestep)
        })?;
        ctm::write(&files[2], &to_local(mesh, row.array("pose")?, self.scale))?;
        Ok(vec![
            OutRow::new()
                .file("ex_code", &files[0])
                .str("ex_code_path", frame.expression())
                .file("canonical", &files[1])
                .str("canonical_path", frame.canonical())
                .file("local_mesh", &files[2])
                .str("local_mesh_path", frame.mesh()),
        ])
    }
}

/// A mesh in the world, back in the head model's space.
fn to_local(mesh: Mesh, pose: [f64; 6], scale: f64) -> Mesh {
    let back = rodrigues(DVec3::from_slice(&pose[..3])).transpose() * (NPHM_PER_FLAME / scale);
    let translation = DVec3::from_slice(&pose[3..]);
    let positions = mesh.positions.iter().map(|p| (back * (p.as_dvec3() - translation)).as_vec3()).collect();
    Mesh { positions, faces: mesh.faces }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::pose::FlamePose;
    use models::nphm::pose::Pose;

    #[test]
    fn local_meshes_are_where_the_reference_places_them_from() {
        let pose = Pose { rotation: [0.0, 0.4, 0.0], translation: [0.1, -0.2, 0.03] };
        let local = [0.3f32, -0.1, 0.5];
        let mesh = Mesh { positions: vec![pose.to_world(local, 1.1).into()], faces: Vec::new() };
        let back = to_local(mesh, [0.0, 0.4, 0.0, 0.1, -0.2, 0.03], 1.1);
        assert!((back.positions[0] - glam::Vec3::from(local)).length() < 1e-6, "{:?}", back.positions);
        // with the reference's own way to the world, whose angles are Euler's
        let flame = FlamePose {
            rotation: DVec3::new(0.0, 0.4, 0.0),
            translation: DVec3::new(0.1, -0.2, 0.03),
            scale: DVec3::splat(1.1),
        };
        let world = flame.nphm_to_world().transform_point3(back.positions[0].as_dvec3());
        assert!((world.as_vec3() - glam::Vec3::from(pose.to_world(local, 1.1))).length() < 1e-6);
    }
}
