//! `evaluate_skin`: how far skin that was found again lies from where it truly is, beside where the tracked surface had
//! it.
//!
//! reads: sequence?, timestep, skin, mesh, pose, truth; with reference (sequence?, timestep, mesh, pose, truth, lost,
//! expression), carried? (sequence?, timestep, mesh, pose), person
//! writes: skin_error_mm, skin_error_tracked_mm
//!
//! A row is a moment, `reference` what `track_skin` had for it. The place of each point on the true surface at the
//! reference moves along with that surface; both columns are medians over the points of the distance from there along
//! the surface (across it evaluate_tracking measures): of what was found, and of the place that the tracked mesh has
//! for the same canonical point. Null where nothing was found, and at the reference itself, where there is nothing to
//! find. Rows that were tracked otherwise than `reference` was, by another model perhaps, whose canonical head is
//! another: `carried` has rows of that tracking, and the canonical points are those which its surface has at the moment
//! of the reference where the skin is. On synthetic people only.

use crate::common::head_models::Person;
use crate::common::skin::{self, SKIN};
use crate::common::surfaces::Surface;
use anyhow::{Context, Result};
use datasets::truth::Truth;
use geometry::Mesh;
use geometry::distance::MeshDistance;
use geometry::nearest::KdTree;
use glam::Vec3;
use manifests::{Type, Value};
use metrics::quantile::median;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Table, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

const SURFACE: [(&str, Type); 2] = [("mesh", Type::Blob), ("pose", Type::Floats(6))];
const TRUTH: (&str, Type) = ("truth", Type::Blob);
const TIMESTEP: (&str, Type) = ("timestep", Type::I64);

fn def() -> StageDef {
    StageDef::new("evaluate_skin", 2, Grain::Row)
        .doc("Distance of skin that was found again from where it truly is.")
        .reads(SURFACE)
        .reads([TRUTH, TIMESTEP, SKIN])
        .may_read([skin::SEQUENCE])
        .with("reference", SURFACE)
        .with("reference", [TRUTH])
        .with("reference", skin::CHOSEN_BY)
        .with_may_read("reference", [skin::SEQUENCE])
        .may_take("carried", SURFACE)
        .with("carried", [TIMESTEP])
        .with_may_read("carried", [skin::SEQUENCE])
        .with("person", [("person", Type::Blob)])
        .writes([("skin_error_mm", Type::F64), ("skin_error_tracked_mm", Type::F64)])
        .batch(8)
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| {
    let scale = Person::of(cx)?.scale;
    let rows: Vec<Row<'_>> = cx.with("reference")?.rows().collect();
    let chosen = skin::reference(&rows)?;
    let row = chosen.first().context("`reference` has no rows")?;
    let surface = Surface::read(row, scale)?;
    let moment = skin::moment(row)?;
    let carrier = cx.maybe_with("carried").map(|table| Carrier::read(table, &moment, scale)).transpose()?;
    let truth = Truth::read(&row.path("truth")?)?;
    let faces = truth.faces.clone();
    let tree = MeshDistance::new(&Mesh { positions: truth.positions, faces: truth.faces });
    anyhow::Ok(EvaluateSkin { scale, moment, surface, carrier, tree, faces })
});

/// The surface of another tracking at the reference.
struct Carrier {
    surface: Surface,
    vertices: KdTree,
}

impl Carrier {
    /// That of the row of this moment.
    fn read(table: &Table, moment: &(String, i64), scale: f64) -> Result<Carrier> {
        for row in table.rows() {
            if skin::is_same(&skin::moment(&row)?, moment) {
                let surface = Surface::read(&row, scale)?;
                return Ok(Carrier { vertices: KdTree::new(&surface.mesh.positions), surface });
            }
        }
        let (sequence, timestep) = moment;
        anyhow::bail!(
            "`carried` has no row of the reference, {sequence} timestep {timestep}\nhint: it takes the rows of the same sequence as `reference`"
        )
    }

    /// What canonical place it has at a place of the world, metres.
    fn place(&self, world: Vec3) -> Vec3 {
        let (v, _) = self.vertices.nearest(world);
        let beside = self.surface.in_head(world) - self.surface.in_head(self.surface.mesh.positions[v]);
        self.surface.canonical[v] + beside.as_vec3()
    }
}

struct EvaluateSkin {
    scale: f64,
    /// Of the reference.
    moment: (String, i64),
    /// What was tracked at the reference, and the true surface there.
    surface: Surface,
    /// What the rows are of, if not of that tracking.
    carrier: Option<Carrier>,
    tree: MeshDistance,
    faces: Vec<[u32; 3]>,
}

impl Stage for EvaluateSkin {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit)).collect()
    }
}

impl EvaluateSkin {
    fn score(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        if skin::is_same(&skin::moment(&row)?, &self.moment) {
            return Ok(vec![OutRow::new().set("skin_error_mm", Value::Null).set("skin_error_tracked_mm", Value::Null)]);
        }
        let now = Surface::read(&row, self.scale)?;
        let path = row.path("truth")?;
        let truth = Truth::read(&path)?;
        anyhow::ensure!(
            truth.faces == self.faces,
            "{} has {} triangles, or others than the truth of `reference`, which has {}\nhint: they have to be of one person",
            path.display(),
            truth.faces.len(),
            self.faces.len()
        );
        let (mut found, mut tracked) = (Vec::new(), Vec::new());
        for (point, place) in skin::read(&row.path("skin")?)? {
            let place = Vec3::from(place);
            let Some(was) = self.surface.at(place) else { continue };
            let own = self.carrier.as_ref().map_or(place, |carrier| carrier.place(was));
            let (Some(home), Some(had)) = (self.tree.closest(was), now.at(own)) else { continue };
            let corners = self.faces[home.face as usize].map(|v| truth.positions[v as usize]);
            let is: Vec3 = corners.iter().zip(home.bary.to_array()).map(|(p, b)| *p * b).sum();
            let normal = (corners[1] - corners[0]).cross(corners[2] - corners[0]).normalize_or_zero();
            let along = |p: Vec3| f64::from(1000.0 * (p - is).reject_from_normalized(normal).length());
            found.push(along(Vec3::from(point)));
            tracked.push(along(had));
        }
        Ok(vec![
            OutRow::new().maybe_f64("skin_error_mm", median(found)).maybe_f64("skin_error_tracked_mm", median(tracked)),
        ])
    }
}
