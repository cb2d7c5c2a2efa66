//! `scan_meshes`: scans of one's own, as pools of points to train a head model on, in the place of `scan_synthetic`.
//!
//! reads: identity, expression, file (PLY or OBJ)
//! writes: scans (safetensors), scan_count
//!
//! A group is a person (`by: [identity]`), a row one mesh of them; `files: "scans/*/*.ply"` with `parse:
//! "scans/{identity:i64}/{expression}.ply"` makes such rows. The meshes are registered: a template fitted to each scan,
//! so that a vertex is the same place of the face in all of them, and the triangles are the same. One expression is the
//! neutral one. `unit`, `up`, `front` and `center` say how the head lies in the files; `anchors` which vertices are the
//! anchors of the head model. What comes out, and how points are drawn, says `scan_pools`; model space is that of
//! `head_models`. Knows no networks, and not where the meshes come from.

use crate::common::arrays::{Arrays, write_arrays};
use crate::common::head_models::HEAD_CENTER;
use crate::common::scan_pools::{Sampler, cameras};
use anyhow::{Context, Result, bail, ensure};
use geometry::{Mesh, obj, ply};
use glam::{Mat3, Vec3};
use manifests::Type;
use models::nphm::pose::UNITS_PER_METRE;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What a length of 1 is in the files.
    #[serde(default)]
    unit: Length,
    /// The axis of the files that points up.
    #[serde(default = "up")]
    up: Axis,
    /// The axis of the files that the face looks along.
    #[serde(default = "front")]
    front: Axis,
    /// Where the middle of the head lies, between the ears, in the files' axes and units.
    #[serde(default)]
    center: [f32; 3],
    /// Vertices of the anchors, counted from 0: pairs first, the left one and then the right one of each
    /// (`anchor_pairs` of train_head_model says how many), then those in the middle. They should cover the face every 3
    /// cm and the rest of the head every 8 cm.
    #[schemars(length(min = 1))]
    anchors: Vec<u32>,
    /// The expression that is the neutral one.
    #[serde(default = "neutral")]
    neutral: String,
    /// Surface points of each scan.
    #[serde(default = "points")]
    #[schemars(range(min = 1))]
    points: usize,
}

/// What a length of 1 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
enum Length {
    /// A metre.
    #[default]
    #[serde(rename = "m")]
    Metre,
    /// A centimetre.
    #[serde(rename = "cm")]
    Centimetre,
    /// A millimetre.
    #[serde(rename = "mm")]
    Millimetre,
    /// 25 cm, as in the data of NPHM.
    #[serde(rename = "nphm")]
    Nphm,
}

impl Length {
    const ALL: [(Length, &str, f32); 4] = [
        (Length::Metre, "m", 1.0),
        (Length::Centimetre, "cm", 0.01),
        (Length::Millimetre, "mm", 0.001),
        (Length::Nphm, "nphm", 0.25),
    ];

    /// Its name and how many metres it is.
    fn told(self) -> (&'static str, f32) {
        Length::ALL.into_iter().find(|(unit, ..)| *unit == self).map_or(("m", 1.0), |(_, name, metres)| (name, metres))
    }
}

/// An axis and its direction.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
enum Axis {
    #[serde(rename = "+x")]
    PlusX,
    #[serde(rename = "-x")]
    MinusX,
    #[serde(rename = "+y")]
    PlusY,
    #[serde(rename = "-y")]
    MinusY,
    #[serde(rename = "+z")]
    PlusZ,
    #[serde(rename = "-z")]
    MinusZ,
}

impl Axis {
    fn direction(self) -> Vec3 {
        match self {
            Axis::PlusX => Vec3::X,
            Axis::MinusX => -Vec3::X,
            Axis::PlusY => Vec3::Y,
            Axis::MinusY => -Vec3::Y,
            Axis::PlusZ => Vec3::Z,
            Axis::MinusZ => -Vec3::Z,
        }
    }
}

fn up() -> Axis {
    Axis::PlusY
}
fn front() -> Axis {
    Axis::PlusZ
}
fn neutral() -> String {
    "neutral".into()
}
fn points() -> usize {
    8000
}

/// Widths that heads have, metres: a child's without ears, and one with its shoulders.
const WIDTH: [f32; 2] = [0.09, 0.7];
/// How far a surface goes that is a head's and no whole person's: heights, metres.
const HEIGHT: [f32; 2] = [0.12, 0.8];

fn def() -> StageDef {
    StageDef::new("scan_meshes", 1, Grain::Group)
        .doc("Takes registered scans of people (PLY, OBJ) as points with correspondence, to train a head model.")
        .reads([("identity", Type::I64), ("expression", Type::Str), ("file", Type::Blob)])
        .writes([("scans", Type::Blob), ("scan_count", Type::I64)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let mut sorted = params.anchors.clone();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1]) {
        bail!("`anchors` names vertex {} twice\nhint: each anchor has a place of its own", twice[0]);
    }
    let (up, front) = (params.up.direction(), params.front.direction());
    ensure!(up.dot(front) == 0.0, "`up` and `front` are the same axis\nhint: most files have up: +y and front: +z");
    // rows: where the model's x (to the subject's left), y and z lie in the files
    let turn = Mat3::from_cols(up.cross(front), up, front).transpose();
    anyhow::Ok(ScanMeshes { params, turn })
});

struct ScanMeshes {
    params: Params,
    /// From the files' axes to the model's.
    turn: Mat3,
}

impl Stage for ScanMeshes {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.person(unit, cx)).collect()
    }
}

impl ScanMeshes {
    fn person(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        let identity = rows.first().context("a person without a scan")?.i64("identity")?;
        let mut scans =
            rows.iter().map(|row| Ok((row.str("expression")?, row.path("file")?))).collect::<Result<Vec<_>>>()?;
        ensure!(
            scans.iter().all(|(expression, _)| !expression.is_empty()),
            "person {identity}: a scan has no `expression`\nhint: `parse:` of `files:` reads it off the path"
        );
        // the neutral one first, the others by name
        scans.sort_by_key(|(expression, path)| (*expression != p.neutral, expression.clone(), path.clone()));
        let neutral_scans = scans.iter().filter(|(expression, _)| *expression == p.neutral).count();
        ensure!(
            neutral_scans == 1,
            "person {identity} has {neutral_scans} scans with the expression `{}`, expected one\n\
             hint: `neutral` names the expression that is the neutral one; there are {}",
            p.neutral,
            scans.iter().map(|(expression, _)| format!("`{expression}`")).collect::<Vec<_>>().join(", ")
        );
        let place = |expression: &str| format!("person {identity}, expression `{expression}`");
        let meshes = scans
            .iter()
            .map(|(expression, path)| {
                let whole = "the file has to be a whole mesh, PLY or OBJ: copy or export it again";
                self.mesh(path).with_context(|| format!("{}\nhint: {whole}", place(expression)))
            })
            .collect::<Result<Vec<_>>>()?;
        let neutral = &meshes[0];
        self.check_neutral(neutral).with_context(|| place(&scans[0].0))?;
        for ((expression, _), mesh) in scans.iter().zip(&meshes).skip(1) {
            ensure!(
                mesh.positions.len() == neutral.positions.len() && mesh.faces == neutral.faces,
                "{}: {} vertices and {} triangles, the neutral scan has {} and {}, or others\n\
                 hint: scans have to be registered: one template fitted to each of them, its vertices in the same order",
                place(expression),
                mesh.positions.len(),
                mesh.faces.len(),
                neutral.positions.len(),
                neutral.faces.len()
            );
            check_size(mesh, p.unit).with_context(|| place(expression))?;
        }
        let sampler =
            Sampler { faces: neutral.faces.clone(), anchors: p.anchors.clone(), points: p.points, cameras: cameras() };
        let mut rng = ChaCha8Rng::seed_from_u64(identity as u64 ^ 0x3E54);
        let mut arrays = Arrays::new();
        for (i, mesh) in meshes.iter().enumerate() {
            sampler.add(i, &mesh.positions, &neutral.positions, &mut rng, &mut arrays).with_context(|| {
                format!(
                    "{}\nhint: `up`, `front` and `center` say how a head lies in the files; its faces are counter-clockwise from outside",
                    place(&scans[i].0)
                )
            })?;
            cx.progress(i + 1, meshes.len(), "");
        }
        sampler.add_faces(&mut arrays);
        let path = cx.file(unit, "scans.safetensors");
        write_arrays(&path, &arrays)?;
        Ok(vec![OutRow::new().file("scans", &path).i64("scan_count", meshes.len())])
    }

    /// A mesh in model space.
    fn mesh(&self, path: &Path) -> Result<Mesh> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let mesh = match ending.as_str() {
            "ply" => ply::read(path)?.mesh,
            "obj" => obj::read(path)?,
            _ => bail!("{}: a scan is a PLY or an OBJ file", path.display()),
        };
        ensure!(
            !mesh.faces.is_empty(),
            "{}: there are points but no faces\nhint: scans have to be registered meshes",
            path.display()
        );
        ensure!(
            mesh.positions.iter().all(|p| p.is_finite()),
            "{}: a vertex lies nowhere (not a number)",
            path.display()
        );
        let scale = self.params.unit.told().1 * UNITS_PER_METRE as f32;
        let center = Vec3::from(self.params.center);
        let positions =
            mesh.positions.iter().map(|p| self.turn * (*p - center) * scale + Vec3::from(HEAD_CENTER)).collect();
        Ok(Mesh { positions, faces: mesh.faces })
    }

    /// Whether a neutral scan is a head, and lies where heads do.
    fn check_neutral(&self, mesh: &Mesh) -> Result<()> {
        check_size(mesh, self.params.unit)?;
        let (low, high) = mesh.bounds().context("there are no vertices")?;
        let center = Vec3::from(HEAD_CENTER);
        ensure!(
            center.cmpge(low).all() && center.cmple(high).all(),
            "the head lies beside its `center` [{}, {}, {}]\nhint: the middle between the ears, in the axes and units of the files",
            self.params.center[0],
            self.params.center[1],
            self.params.center[2]
        );
        let count = mesh.positions.len();
        if let Some(beyond) = self.params.anchors.iter().find(|v| **v as usize >= count) {
            bail!(
                "`anchors` names vertex {beyond}, and the scan has {count}, counted from 0\nhint: do the anchors belong to this template?"
            );
        }
        Ok(())
    }
}

/// Whether a mesh in model space is as large as a head.
fn check_size(mesh: &Mesh, unit: Length) -> Result<()> {
    let (low, high) = mesh.bounds().context("there are no vertices")?;
    let size = (high - low) / UNITS_PER_METRE as f32;
    let fits =
        |width: f32, height: f32| (WIDTH[0]..=WIDTH[1]).contains(&width) && (HEIGHT[0]..=HEIGHT[1]).contains(&height);
    if fits(size.x, size.y) {
        return Ok(());
    }
    let (name, metres) = unit.told();
    let other = Length::ALL.iter().find(|(_, _, other)| fits(size.x / metres * other, size.y / metres * other));
    let hint = match other {
        Some((_, other, _)) => format!("`unit` is `{name}`; with `{other}` it would be as large as a head"),
        None => "`unit` says what a length of 1 is in the files, `up` and `front` how the head lies in them; a scan is of a head, not of a whole person".into(),
    };
    bail!("the head is {} wide and {} high, which no head is\nhint: {hint}", length(size.x), length(size.y))
}

/// A length in the unit one would say it in.
fn length(metres: f32) -> String {
    match metres {
        m if m >= 1.0 => format!("{m:.0} m"),
        m if m >= 0.01 => format!("{:.0} cm", m * 100.0),
        m => format!("{:.2} mm", m * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upright ellipsoid of a head's size, model units.
    fn head(scale: f32) -> Mesh {
        let field = |points: &[Vec3]| {
            points.iter().map(|p| (*p / Vec3::new(0.3, 0.45, 0.4)).length() - 1.0).collect::<Vec<f32>>()
        };
        let mut mesh = geometry::band::extract(&field, Vec3::splat(-0.6), Vec3::splat(0.6), 13, 0);
        mesh.positions.iter_mut().for_each(|p| *p *= scale);
        mesh
    }

    #[test]
    fn a_head_of_the_wrong_unit_is_told_by_its_size() {
        check_size(&head(1.0), Length::Metre).unwrap();
        // millimetres read as metres
        let said = check_size(&head(1000.0), Length::Metre).unwrap_err().to_string();
        assert!(said.contains("150 m wide and 225 m high") && said.contains("with `mm`"), "{said}");
        let said = check_size(&head(0.001), Length::Millimetre).unwrap_err().to_string();
        assert!(said.contains("0.15 mm wide") && said.contains("with `m` it"), "{said}");
        let said = check_size(&head(20.0), Length::Metre).unwrap_err().to_string();
        assert!(said.contains("3 m wide") && said.contains("`unit`"), "{said}");
    }
}
