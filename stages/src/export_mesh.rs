//! `export_mesh`: tracked meshes as other programs take them, one file a frame, for `effigy export`.
//!
//! reads: participant, sequence, timestep, mesh
//! writes: exported, exported_path
//!
//! The mesh stays in the world frame: metres, right-handed, +y up, the face to +z, which is glTF's convention, too. PLY
//! has normals and every property that the tracked mesh has; GLB has normals, `_CANONICAL` (VEC3) and `_AMBIENT`
//! (VEC2), in NPHM units; OBJ has normals, and no place for more. Knows no images and no cameras.

use crate::common::tracked;
use anyhow::{Context, Result, ensure};
use geometry::exchange::{Values, write_glb, write_obj};
use geometry::ply;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What is written.
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Binary little endian, with all that the vertices carry.
    Ply,
    /// Text, with normals alone.
    Obj,
    /// Binary glTF 2.0.
    #[default]
    Glb,
}

fn def() -> StageDef {
    StageDef::new("export_mesh", 1, Grain::Row)
        .doc("Writes tracked meshes as PLY, OBJ or GLB, and names the place of each.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64), ("mesh", Type::Blob)])
        .writes([("exported", Type::Blob), ("exported_path", Type::Str)])
        .batch(16)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExportMesh { params }));

struct ExportMesh {
    params: Params,
}

impl Stage for ExportMesh {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.export(unit, cx)).collect()
    }
}

impl ExportMesh {
    fn export(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let number = |column: &str| -> Result<u32> {
            let value = row.i64(column)?;
            u32::try_from(value).with_context(|| format!("column `{column}` holds {value}, expected a number from 0"))
        };
        let (participant, sequence, timestep) = (number("participant")?, row.str("sequence")?, number("timestep")?);
        ensure!(
            !sequence.is_empty() && !sequence.contains(['/', '\\']),
            "column `sequence` holds `{sequence}`, which is no name of a folder\nhint: `select:` with `set:` gives it another"
        );
        let ending = match self.params.format {
            Format::Ply => "ply",
            Format::Obj => "obj",
            Format::Glb => "glb",
        };
        let to = cx.file(unit, &format!("mesh.{ending}"));
        let name = format!("{participant:03} {sequence} {timestep}");
        write(self.params.format, &row.path("mesh")?, &to, &name)?;
        let place = format!("{participant:03}/{sequence}/mesh_{timestep:05}.{ending}");
        Ok(vec![OutRow::new().file("exported", &to).str("exported_path", place)])
    }
}

fn write(format: Format, from: &Path, to: &Path, name: &str) -> Result<()> {
    match format {
        Format::Ply => {
            let mut mesh = ply::read(from)?;
            mesh.normals = mesh.mesh.vertex_normals();
            Ok(ply::write(to, &mesh)?)
        }
        Format::Obj => Ok(write_obj(to, &tracked::read_mesh(from)?.0)?),
        Format::Glb => {
            let (mesh, vertices) = tracked::read_mesh(from)?;
            let canonical: Vec<[f32; 3]> = vertices.iter().map(|[x, y, z, ..]| [*x, *y, *z]).collect();
            let ambient: Vec<[f32; 2]> = vertices.iter().map(|[.., a, b]| [*a, *b]).collect();
            let attributes = [("CANONICAL", Values::Vec3(&canonical)), ("AMBIENT", Values::Vec2(&ambient))];
            Ok(write_glb(to, name, &mesh, &attributes)?)
        }
    }
}
