//! Head models and people on disk: what `train_head_model` and `fit_identity` put out and the tracker takes in.
//!
//! No stage. A head model is a JSON of its dimensions and a safetensors of its weights and mean anchors; a person is a
//! JSON of an identity code and the size of the head. Knows the networks' names, not their mathematics.

use crate::common::landmarks;
use crate::common::skin::{self, SKIN};
use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use geometry::cut::{Plane, throat_cut};
use geometry::nearest::KdTree;
use geometry::{Mesh, band};
use glam::{DVec3, Vec3};
use manifests::Type;
use models::nphm::config::{Direction, HeadConfig};
use models::nphm::field::{HeadModel, canonical, field_values, pushed};
use models::nphm::fit::{Cloud, FitConfig, Frame, Known, fit_frame};
use models::nphm::pose::Pose;
use models::weights;
use protocol::{Cx, Row, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// The columns of a head model.
pub const COLUMNS: [(&str, Type); 2] = [("head_config", Type::Blob), ("head_weights", Type::Blob)];

/// The column of places that are known to be free, which `free_space` puts out.
pub const FREE_SPACE: (&str, Type) = ("free_space", Type::Blob);

/// One unit of the head model in millimetres.
pub const UNIT_MM: f64 = 250.0;

/// Where the centre of a head lies in model space: FLAME's origin is in the front of the neck's top, so the published
/// extraction box and the ranges of the canonical quantiser hold.
pub const HEAD_CENTER: [f32; 3] = [0.0, 0.1, -0.25];

/// The box in which a surface is sought, model units: the published extraction box, higher by a tall head's crown and
/// lower by the neck.
pub const BOX: [[f32; 3]; 2] = [[-0.6, -0.6, -0.95], [0.6, 0.9, 0.4]];

/// A frame to start from: neutral, upright, facing +z, the centre of the head at `center` (world, metres).
pub fn initial_frame(center: [f64; 3]) -> Frame {
    let translation = [0, 1, 2].map(|i| center[i] - f64::from(HEAD_CENTER[i]) * UNIT_MM / 1000.0);
    Frame { z_ex: Vec::new(), pose: Pose { rotation: [0.0; 3], translation }, residual: 0.0, kept: 0.0 }
}

/// The surface of a head with an expression in model space. Parameters are those of [`level_set`].
pub fn surface(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, coarse: usize, levels: u32) -> Mesh {
    let mesh = level_set(model, z_id, z_ex, coarse, levels);
    match model.config.deformation.direction {
        Direction::Backward => mesh,
        Direction::Forward => {
            let places = pushed(model, z_id, z_ex, &vertices(&mesh));
            Mesh { positions: places.into_iter().map(Vec3::from).collect(), faces: mesh.faces }
        }
    }
}

fn vertices(mesh: &Mesh) -> Vec<[f32; 3]> {
    mesh.positions.iter().map(|v| v.to_array()).collect()
}

/// Where the field is zero, sought in [`BOX`] on a grid of `coarse` points a side that is halved `levels` times around
/// it; the largest part: of a forward model the canonical surface, which is the same for all expressions. It has no
/// faces if the field has no surface there. Codes are `[d]` or `[1, d]`.
fn level_set(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, coarse: usize, levels: u32) -> Mesh {
    let field = |points: &[Vec3]| {
        let flat: Vec<f32> = points.iter().flat_map(|p| p.to_array()).collect();
        field_values(model, z_id, z_ex, &flat)
    };
    let [low, high] = BOX.map(Vec3::from);
    band::extract(&field, low, high, coarse, levels).largest_component().0
}

/// Points a side of the finest grid on which a surface may be sought: cells of 0.6 mm, and values for 1.1 GB.
const FINEST: usize = 641;

/// Refuses grids that no machine holds.
///
/// # Errors
/// If the finest one has more than 641 points a side.
pub fn check_grid(coarse: usize, levels: u32) -> Result<()> {
    let finest = coarse.saturating_sub(1).saturating_mul(1 << levels.min(20)) + 1;
    anyhow::ensure!(
        finest <= FINEST,
        "`coarse: {coarse}` that is halved `levels: {levels}` times is a grid of {finest} points a side, at most {FINEST} are possible\n\
         hint: `coarse: 41` and `levels: 3` is 321, cells of 1.2 mm"
    );
    Ok(())
}

/// A person's face with an expression, world frame, metres, sought as in [`surface`] and cut where the person's neck
/// ends; and the 5-d canonical coordinate of each vertex.
///
/// # Errors
/// If the field has no surface, or none above the throat's plane.
pub fn posed(
    model: &HeadModel,
    person: &Person,
    z_ex: &[f32],
    pose: &Pose,
    coarse: usize,
    levels: u32,
) -> Result<(Mesh, Vec<[f32; 5]>)> {
    let z_id = Tensor::from_slice(&person.z_id).unsqueeze(0);
    let z_ex = Tensor::from_slice(z_ex).unsqueeze(0);
    let surface = level_set(model, &z_id, &z_ex, coarse, levels);
    anyhow::ensure!(
        !surface.faces.is_empty(),
        "the fitted field has no surface: tracking failed\nhint: more `first_steps`, or a head model trained for longer"
    );
    let vertices = vertices(&surface);
    let (vertices, canonical) = match model.config.deformation.direction {
        Direction::Backward => {
            let canonical = canonical(model, &z_id, &z_ex, &vertices);
            (vertices, canonical)
        }
        Direction::Forward => {
            let posed = pushed(model, &z_id, &z_ex, &vertices);
            (posed, vertices.into_iter().map(|[x, y, z]| [x, y, z, 0.0, 0.0]).collect())
        }
    };
    let positions = vertices.iter().map(|v| Vec3::from(pose.to_world(*v, person.scale))).collect();
    let posed = Mesh { positions, faces: surface.faces };
    match &person.throat {
        Some(throat) => throat.cut(posed, canonical),
        None => Ok((posed, canonical)),
    }
}

/// Where the neck ends: a point of a plane and the direction from it in which the head lies, canonical space, model
/// units.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Throat([f64; 6]);

impl Throat {
    /// # Errors
    /// If the direction is none, or does not point up: the plane of a posed head is known only up to its side.
    pub fn check(&self) -> Result<()> {
        self.plane().map(drop)
    }

    fn plane(&self) -> Result<Plane> {
        let [x, y, z, nx, ny, nz] = self.0;
        let normal =
            DVec3::new(nx, ny, nz).try_normalize().filter(|n| n.y > 0.0 && [x, y, z].iter().all(|v| v.is_finite()));
        let normal = normal.with_context(|| {
            format!(
                "`throat` is {:?}, expected a point and a direction with a positive second number\n\
                 hint: the head lies in that direction, and +y is up",
                self.0
            )
        })?;
        Ok(Plane { origin: DVec3::new(x, y, z), normal })
    }

    /// Cuts off what lies below, so that the neck ends in a plane.
    ///
    /// # Errors
    /// If next to nothing lies above.
    pub fn cut(&self, posed: Mesh, canonical: Vec<[f32; 5]>) -> Result<(Mesh, Vec<[f32; 5]>)> {
        let plane = self.plane()?;
        let places: Vec<Vec3> = canonical.iter().map(|c| Vec3::from_slice(&c[..3])).collect();
        if places.iter().all(|place| plane.distance(place.as_dvec3()) >= 0.0) {
            return Ok((posed, canonical));
        }
        let (cut, old) = throat_cut(&posed, &places, &plane).context(
            "the surface has no edge at the plane of `throat`: next to nothing of it lies above\nhint: is the plane given in model units (25 cm)?",
        )?;
        Ok((cut, old.iter().map(|v| canonical[*v as usize]).collect()))
    }
}

/// Updates of a rigid alignment.
const ALIGN_STEPS: usize = 40;
/// Fewer points than this are no face.
const MIN_POINTS: usize = 100;

/// Writes a head model.
///
/// # Errors
/// If a file cannot be written.
pub fn write(config: &Path, file: &Path, model: &HeadModel) -> Result<()> {
    std::fs::write(config, serde_json::to_string_pretty(&model.config)? + "\n")
        .with_context(|| format!("cannot write {}", config.display()))?;
    Ok(weights::write(file, &model.tensors(), &BTreeMap::new(), weights::Precision::Keep)?)
}

/// Reads the head model of a table's only row, frozen, for fits to observed points.
///
/// # Errors
/// If a file is missing, or the weights do not fit the dimensions.
pub fn read(table: &Table) -> Result<HeadModel> {
    let row = table.only().context("a head model is one row")?;
    let mut model = of_files(&row.path("head_config")?, &row.path("head_weights")?)?;
    model.vs.freeze();
    Ok(model)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// If a file is missing, or the weights do not fit the dimensions.
pub fn of_files(config: &Path, file: &Path) -> Result<HeadModel> {
    let text = std::fs::read(config).with_context(|| format!("cannot read {}", config.display()))?;
    let dimensions: HeadConfig = serde_json::from_slice(&text)
        .with_context(|| format!("{} does not describe a head model", config.display()))?;
    let tensors = weights::read(file)?;
    let anchors = tensors.get("mean_anchors").with_context(|| format!("{} has no mean_anchors", file.display()))?;
    let mut model = HeadModel::new(&dimensions, anchors, Device::Cpu)?;
    model.set_tensors(&tensors, &file.display().to_string())?;
    Ok(model)
}

/// A person: what all their frames share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Identity code.
    pub z_id: Vec<f32>,
    /// Size of the head relative to the model's.
    pub scale: f64,
    /// Canonical places of the landmarks, model units; empty if the person was fitted without any.
    #[serde(default)]
    pub landmarks: Vec<Option<[f32; 3]>>,
    /// Where meshes are cut; none if they end where the head model does.
    #[serde(default)]
    pub throat: Option<Throat>,
}

impl Person {
    /// The person of the constant `person`.
    ///
    /// # Errors
    /// If it is not one row, or its file does not describe a person.
    pub fn of(cx: &Cx<'_>) -> Result<Person> {
        let path = cx.with("person")?.only().context("`person` is what fit_identity puts out")?.path("person")?;
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} does not describe a person", path.display()))
    }

    /// What fits are told of the person.
    pub fn known(&self) -> Known<'_> {
        Known { z_id: &self.z_id, landmarks: &self.landmarks }
    }
}

/// What is fitted to, model units: the face, the ears and the throat. Hair and clothes are no part of the model, and
/// would pull the skull out and the shoulders in; the rest of the head follows from what the model knows of heads.
const OBSERVED: [[f32; 3]; 2] = [[-0.42, -0.4, -0.4], [0.42, 0.42, 0.45]];

/// What lies farther than this from every landmark is not certainly skin, metres: the landmarks' mesh covers the face
/// from the hairline to the chin and to the ears, and its points lie 3 to 12 mm apart.
const FACE: f32 = 0.015;

/// What was seen at one moment, world metres.
pub struct Moment {
    cloud: PointCloud,
    free: Vec<Vec3>,
    landmarks: Vec<Option<[f32; 3]>>,
    skin: Vec<([f32; 3], [f32; 3])>,
}

impl Moment {
    /// The columns of a moment that need not be there.
    pub const MAY_READ: [(&str, Type); 2] = [landmarks::TRIANGULATED, FREE_SPACE];

    /// The moment of a row: its `cloud`, and landmarks, free space and skin if it has them.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(row: &Row<'_>) -> Result<Moment> {
        let free = row.maybe_path(FREE_SPACE.0)?.map(|path| geometry::ply::read_cloud(&path)).transpose()?;
        let found = if row.has(landmarks::TRIANGULATED.0) {
            landmarks::of_column(&row.floats(landmarks::TRIANGULATED.0)?)
        } else {
            Vec::new()
        };
        Ok(Moment {
            cloud: geometry::ply::read_cloud(&row.path("cloud")?)?,
            free: free.map(|cloud| cloud.positions).unwrap_or_default(),
            landmarks: found.into_iter().map(|p| p.map(|p| p.as_vec3().to_array())).collect(),
            skin: row.maybe_path(SKIN.0)?.map(|path| skin::read(&path)).transpose()?.unwrap_or_default(),
        })
    }

    /// The points.
    pub fn cloud(&self) -> &PointCloud {
        &self.cloud
    }

    /// The landmarks, world metres; empty if the moment has none.
    pub fn found(&self) -> Vec<Option<DVec3>> {
        self.landmarks.iter().map(|p| p.map(|p| Vec3::from(p).as_dvec3())).collect()
    }

    /// Observations for a fit: the landmarks, and of the cloud and the free space what lies at the face of a head in
    /// about this pose, at most `points` of each.
    ///
    /// # Errors
    /// If there are too few points to fit a face to.
    pub fn observed(&self, points: usize, pose: &Pose, scale: f64) -> Result<Cloud> {
        let free = thinned(on_face(&self.free, pose, scale), points);
        let outside = free.into_iter().map(|i| self.free[i].to_array()).collect();
        let seen = observed(&self.cloud, points, pose, scale)?;
        let covering = covering(&seen.points, &self.landmarks);
        Ok(Cloud { outside, landmarks: self.landmarks.clone(), covering, skin: self.skin.clone(), ..seen })
    }
}

/// Points of a cloud as observations for a fit: those on the face of a head in about this pose, at most `points` of
/// them, world metres.
///
/// # Errors
/// If there are too few to fit a face to.
pub fn observed(cloud: &PointCloud, points: usize, pose: &Pose, scale: f64) -> Result<Cloud> {
    let on_face = on_face(&cloud.positions, pose, scale);
    anyhow::ensure!(
        on_face.len() >= MIN_POINTS,
        "only {} of {} points lie where the face should be\nhint: is `center` the middle of the head, and does it face +z?",
        on_face.len(),
        cloud.positions.len()
    );
    let kept = thinned(on_face, points);
    let take = |values: &[Vec3]| kept.iter().map(|&i| values[i].to_array()).collect();
    let normals = if cloud.normals.is_empty() { Vec::new() } else { take(&cloud.normals) };
    Ok(Cloud { points: take(&cloud.positions), normals, ..Cloud::default() })
}

/// Which points may be hair, or clothes: those far from all landmarks. Without landmarks nothing tells, and all count
/// as skin: empty.
fn covering(points: &[[f32; 3]], landmarks: &[Option<[f32; 3]>]) -> Vec<bool> {
    let skin: Vec<Vec3> = landmarks.iter().flatten().map(|p| Vec3::from(*p)).collect();
    if skin.is_empty() {
        return Vec::new();
    }
    let tree = KdTree::new(&skin);
    points.iter().map(|p| tree.nearest(Vec3::from(*p)).1 > FACE).collect()
}

/// Which points lie on the face of a head in about this pose.
fn on_face(places: &[Vec3], pose: &Pose, scale: f64) -> Vec<usize> {
    let is_inside = |p: &Vec3| {
        let q = pose.to_model(p.to_array(), scale);
        (0..3).all(|i| q[i] >= OBSERVED[0][i] && q[i] <= OBSERVED[1][i])
    };
    (0..places.len()).filter(|&i| is_inside(&places[i])).collect()
}

/// At most `points` of them, evenly spaced in the file's order, which is spatial enough; a fit draws its own random
/// points from these.
fn thinned(kept: Vec<usize>, points: usize) -> Vec<usize> {
    let every = kept.len().div_ceil(points.max(1)).max(1);
    kept.into_iter().step_by(every).collect()
}

/// Brings a frame's pose near: a rigid fit of a known shape to what was seen, its codes as they are. `covering` is that
/// of the configuration.
///
/// # Errors
/// If hardly a point lies where the face should be.
pub fn align(
    model: &HeadModel,
    moment: &Moment,
    points: usize,
    frame: Frame,
    person: &Person,
    covering: f64,
) -> Result<Frame> {
    let config = FitConfig {
        steps: ALIGN_STEPS,
        points: 150,
        normal_points: 50,
        scale: person.scale,
        covering,
        // where skin is, is expression's affair
        skin: 0.0,
        rate_codes: 0.0,
        ..FitConfig::default()
    };
    let seen = moment.observed(points, &frame.pose, person.scale)?;
    Ok(fit_frame(model, &seen, &frame, person.known(), &config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neck_ends_in_the_plane_of_its_throat() {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.5).collect::<Vec<f32>>();
        let head = band::extract(&field, Vec3::splat(-0.6), Vec3::splat(0.6), 41, 0);
        let canonical: Vec<[f32; 5]> = head.positions.iter().map(|p| [p.x, p.y, p.z, p.x, 0.5]).collect();
        // a head that was turned over its shoulder and moved
        let pose = Pose { rotation: [0.0, 0.0, 0.4], translation: [1.0, 2.0, 3.0] };
        let posed = Mesh {
            positions: head.positions.iter().map(|p| Vec3::from(pose.to_world(p.to_array(), 1.0))).collect(),
            faces: head.faces,
        };
        let throat = Throat([0.0, -0.2, 0.0, 0.0, 1.0, 0.4]);
        let (cut, coordinates) = throat.cut(posed.clone(), canonical.clone()).unwrap();
        let plane = throat.plane().unwrap();
        let heights =
            cut.positions.iter().map(|p| plane.distance(Vec3::from(pose.to_model(p.to_array(), 1.0)).as_dvec3()));
        let lowest = heights.fold(f64::INFINITY, f64::min);
        // units of 25 cm; the edge is the mean of a jagged one
        assert!(lowest > -0.03 && lowest < 0.03, "{lowest}");
        assert!(cut.boundary_vertices().len() > 40);
        for (position, coordinate) in cut.positions.iter().zip(&coordinates) {
            let moved =
                (Vec3::from(pose.to_model(position.to_array(), 1.0)) - Vec3::from_slice(&coordinate[..3])).length();
            assert!(moved < 0.04 && coordinate[3] == coordinate[0], "{coordinate:?} {moved}");
        }
        let below = Throat([0.0, -0.9, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(below.cut(posed.clone(), canonical.clone()).unwrap().1, canonical, "nothing lies below");
        let said = Throat([0.0, 0.9, 0.0, 0.0, 1.0, 0.0]).cut(posed, canonical).unwrap_err().to_string();
        assert!(said.contains("no edge"), "{said}");
        assert!(Throat([0.0, 0.0, 0.0, 0.0, -1.0, 0.0]).check().is_err() && Throat([0.0; 6]).check().is_err());
    }
}
