//! `plan_trajectory`: cameras that nobody filmed with, for a tracked sequence: rows that `raster_gbuffer` and
//! `render_avatar` take without any picture.
//!
//! reads: timestep, pose; with rig (camera, intrinsics, world_to_cam, width)
//! writes: camera, timestep, frame, intrinsics, world_to_cam, width, height
//!
//! A group is a sequence; a row comes out for each picture of the film. `timestep` counts the pictures and `frame` is
//! the timestep of the sequence that is shown: every frame `hold` times, forwards and backwards in turn if there are
//! more pictures. `camera` names the trajectory, or the rig camera. Cameras stand in the head's frame of the first
//! frame (the axes of the head model, metres, +y up, the face towards +z) and stay there while the head moves. With i
//! the number of the picture (DiffusionAvatars, section 5.2 of the specification):
//!
//! - `camera_shake`: at (shake sin(2 pi i / frequency), move_y, distance + curve_z cos(4 pi i / frequency)).
//! - `circle`: on a circle of `radius` in the plane z = distance, once around in the whole film.
//! - `orbit`: around the middle of the head at `distance`, `degrees` in all: to one side, to the other and back; from
//!   360 on once around.
//! - `rig`: the rig's camera, lifted by `move_y` along its own up.
//!
//! All but the last look at (0, look_y, 0), the orbit at the middle of the head at this height. Pictures are `size` x
//! `size` px with the focal length of the rig's camera scaled by `size` over its width, and the principal point in the
//! middle. An avatar that saw nobody from behind cannot show it: the default orbit stays within the arc of NeRSemble's
//! cameras. Knows no images and no meshes.

use crate::common::head_models::HEAD_CENTER;
use crate::common::media::px;
use crate::common::timesteps::in_time;
use crate::turntable::shown;
use anyhow::{Context, Result, ensure};
use datasets::capture::look_at;
use geometry::Camera;
use glam::{DMat4, DQuat, DVec3};
use manifests::Type;
use models::nphm::pose::UNITS_PER_METRE;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Table, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Parameters. Lengths are metres.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How the camera moves.
    #[serde(default)]
    trajectory: Trajectory,
    /// Width and height of the pictures, px.
    #[schemars(range(min = 1, max = 16384))]
    size: u32,
    /// Pictures of the film; none: each frame `hold` times.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100000))]
    pictures: Option<usize>,
    /// Pictures that each frame of the sequence is shown in.
    #[serde(default = "hold")]
    #[schemars(range(min = 1, max = 10000))]
    hold: usize,
    /// The rig's camera that gives the focal length and, in `rig`, the view; none: the first row's.
    #[serde(default)]
    camera: Option<String>,
    /// From the head.
    #[serde(default = "distance")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    distance: f64,
    /// How far `camera_shake` goes to either side.
    #[serde(default = "shake")]
    shake: f64,
    /// How far the camera is above the head's origin, which is about as high as the mouth; of `rig`, above where it
    /// stood.
    #[serde(default = "move_y")]
    move_y: f64,
    /// Height of what is looked at; none: `move_y`.
    #[serde(default)]
    look_y: Option<f64>,
    /// How far `camera_shake` goes forth and back.
    #[serde(default = "curve_z")]
    curve_z: f64,
    /// Pictures of one period of `camera_shake`.
    #[serde(default = "frequency")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    frequency: f64,
    /// Of the circle.
    #[serde(default = "radius")]
    radius: f64,
    /// Of the orbit; the rig spans 93.
    #[serde(default = "degrees")]
    degrees: f64,
}

/// How a camera moves.
#[derive(Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Trajectory {
    /// From side to side (the paper).
    #[default]
    CameraShake,
    /// On a circle before the face.
    Circle,
    /// Around the head.
    Orbit,
    /// Not at all, where a rig camera is.
    Rig,
}

fn hold() -> usize {
    1
}
fn distance() -> f64 {
    1.0
}
fn shake() -> f64 {
    0.3
}
fn move_y() -> f64 {
    0.02
}
fn curve_z() -> f64 {
    0.02
}
fn frequency() -> f64 {
    40.0
}
fn radius() -> f64 {
    0.3
}
fn degrees() -> f64 {
    90.0
}

fn def() -> StageDef {
    StageDef::new("plan_trajectory", 1, Grain::Group)
        .doc("Cameras along a trajectory around a tracked head, a row for each picture of the film.")
        .reads([("timestep", Type::I64), ("pose", Type::Floats(6))])
        .with(
            "rig",
            [
                ("camera", Type::Str),
                ("intrinsics", Type::Floats(9)),
                ("world_to_cam", Type::Floats(16)),
                ("width", Type::I64),
            ],
        )
        .writes([("camera", Type::Str), ("timestep", Type::I64), ("frame", Type::I64)])
        .writes([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .writes([("width", Type::I64), ("height", Type::I64)])
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let filmed = Filmed::find(cx.with("rig")?, params.camera.as_deref())?;
    anyhow::Ok(PlanTrajectory { params, filmed })
});

/// A camera of the rig.
struct Filmed {
    name: String,
    /// Focal length in image widths.
    focal: f64,
    world_to_cam: DMat4,
}

impl Filmed {
    fn find(rig: &Table, name: Option<&str>) -> Result<Filmed> {
        let mut names = Vec::new();
        for row in rig.rows() {
            let camera = row.str("camera")?;
            if name.is_none_or(|name| name == camera) {
                let intrinsics: [f64; 9] = row.array("intrinsics")?;
                let world_to_cam = DMat4::from_cols_array(&row.array("world_to_cam")?).transpose();
                let focal = intrinsics[0] / f64::from(px(&row, "width")?);
                return Ok(Filmed { name: camera, focal, world_to_cam });
            }
            names.push(camera);
        }
        names.sort_unstable();
        names.dedup();
        Err(match name {
            Some(name) => anyhow::anyhow!("the rig has no camera {name}\nhint: there are {}", names.join(", ")),
            None => anyhow::anyhow!("`rig` has no rows\nhint: it is what a capture or `extract_frames` puts out"),
        })
    }
}

struct PlanTrajectory {
    params: Params,
    filmed: Filmed,
}

impl Stage for PlanTrajectory {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.plan(unit)).collect()
    }
}

impl PlanTrajectory {
    fn plan(&self, unit: &Unit<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        let order = in_time(&rows)?;
        let first = order.first().context("a sequence of no frames")?.1;
        let pose: [f64; 6] = rows[first].array("pose")?;
        let turn = DQuat::from_scaled_axis(DVec3::from_slice(&pose[..3]));
        let head = DMat4::from_rotation_translation(turn, DVec3::from_slice(&pose[3..]));
        let (name, size) = (self.name(), i64::from(p.size));
        let pictures = p.pictures.unwrap_or(order.len() * p.hold);
        let row = |i: usize| {
            let (frame, at) = order[shown(i / p.hold, order.len())];
            let camera = self.camera(&head, i, pictures);
            let world_to_cam = camera.world_to_cam_row_major();
            ensure!(
                world_to_cam.iter().all(|value| value.is_finite()),
                "picture {i} would be taken from the very place that the camera looks at\nhint: `curve_z` and `distance` say how far off it is"
            );
            Ok(OutRow::of(at)
                .str("camera", name.as_str())
                .i64("timestep", i as i64)
                .i64("frame", frame)
                .floats("intrinsics", camera.intrinsics_row_major())
                .floats("world_to_cam", world_to_cam)
                .i64("width", size)
                .i64("height", size))
        };
        (0..pictures).map(row).collect()
    }

    fn name(&self) -> String {
        match self.params.trajectory {
            Trajectory::CameraShake => "camera_shake".into(),
            Trajectory::Circle => "circle".into(),
            Trajectory::Orbit => "orbit".into(),
            Trajectory::Rig => self.filmed.name.clone(),
        }
    }

    /// The camera of the `i`-th of `n` pictures; `head` takes the head's frame to the world.
    fn camera(&self, head: &DMat4, i: usize, n: usize) -> Camera {
        let p = &self.params;
        let target = DVec3::new(0.0, p.look_y.unwrap_or(p.move_y), 0.0);
        let (turns, phase) = (i as f64 / n as f64, i as f64 / p.frequency);
        let (eye, target) = match p.trajectory {
            Trajectory::CameraShake => {
                let (x, z) = (p.shake * (TAU * phase).sin(), p.distance + p.curve_z * (2.0 * TAU * phase).cos());
                (DVec3::new(x, p.move_y, z), target)
            }
            Trajectory::Circle => {
                let (sine, cosine) = (TAU * turns).sin_cos();
                (DVec3::new(p.radius * sine, p.move_y + p.radius * cosine, p.distance), target)
            }
            Trajectory::Orbit => {
                let away = p.degrees.to_radians();
                let angle = if p.degrees >= 360.0 { away * turns } else { away / 2.0 * (TAU * turns).sin() };
                let middle = DVec3::Z * f64::from(HEAD_CENTER[2]) / UNITS_PER_METRE;
                let eye = middle + DVec3::new(p.distance * angle.sin(), p.move_y, p.distance * angle.cos());
                (eye, target + middle)
            }
            Trajectory::Rig => {
                // the camera's y points down; lifting it moves the world down in its frame
                let lifted = DMat4::from_translation(DVec3::Y * p.move_y) * self.filmed.world_to_cam;
                return self.pinhole(&lifted);
            }
        };
        self.pinhole(&(look_at(eye, target) * head.inverse()))
    }

    fn pinhole(&self, world_to_cam: &DMat4) -> Camera {
        let size = f64::from(self.params.size);
        let (focal, middle) = (self.filmed.focal * size, size / 2.0);
        let k = [focal, 0.0, middle, 0.0, focal, middle, 0.0, 0.0, 1.0];
        Camera::from_row_major(&k, &world_to_cam.transpose().to_cols_array(), self.params.size, self.params.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(params: &str) -> PlanTrajectory {
        let params: Params = serde_json::from_str(params).unwrap();
        let world_to_cam = look_at(DVec3::new(0.2, 0.1, 1.0), DVec3::ZERO);
        PlanTrajectory { params, filmed: Filmed { name: "1".into(), focal: 3.0, world_to_cam } }
    }

    /// A head that looks along +x and lies beside the origin.
    fn head() -> DMat4 {
        DMat4::from_rotation_translation(DQuat::from_rotation_y(TAU / 4.0), DVec3::new(0.1, 0.0, -0.2))
    }

    #[test]
    fn the_shaking_camera_is_where_the_paper_has_it() {
        let stage = planned(r#"{"size": 512}"#);
        for i in [0usize, 7, 10, 33] {
            let camera = stage.camera(&head(), i, 100);
            let phase = i as f64 / 40.0;
            let expected = DVec3::new(0.3 * (TAU * phase).sin(), 0.02, 1.0 + 0.02 * (2.0 * TAU * phase).cos());
            let found = head().inverse().transform_point3(camera.center());
            assert!((found - expected).length() < 1e-12, "{found}");
            // (0, move_y, 0) of the head in the middle of the picture, and the head upright
            let (px, z) = camera.project(head().transform_point3(DVec3::new(0.0, 0.02, 0.0)));
            assert!((px - glam::DVec2::splat(256.0)).length() < 1e-9 && z > 0.9);
            let (above, _) = camera.project(head().transform_point3(DVec3::new(0.0, 0.1, 0.0)));
            assert!(above.y < 256.0 && (above.x - 256.0).abs() < 1e-9);
            assert_eq!(camera.intrinsics.x_axis.x, 3.0 * 512.0);
        }
    }

    #[test]
    fn orbits_keep_their_distance_and_reach_their_angle() {
        let middle = head().transform_point3(DVec3::new(0.0, 0.02, f64::from(HEAD_CENTER[2]) / UNITS_PER_METRE));
        for (degrees, reached) in [(90.0, 45.0), (360.0, 180.0)] {
            let stage = planned(&format!(r#"{{"size": 64, "trajectory": "orbit", "degrees": {degrees}}}"#));
            let seen: Vec<DVec3> = (0..40).map(|i| stage.camera(&head(), i, 40).center() - middle).collect();
            assert!(seen.iter().all(|eye| (eye.length() - 1.0).abs() < 1e-9));
            let widest = seen.iter().map(|eye| eye.angle_between(seen[0]).to_degrees()).fold(0.0, f64::max);
            assert!((widest - reached).abs() < 1e-4, "{widest}");
            assert!((seen[0] - DVec3::X).length() < 1e-9, "it begins before the face");
        }
    }

    #[test]
    fn the_circle_goes_around_the_axis_and_a_rig_camera_is_lifted() {
        let stage = planned(r#"{"size": 64, "trajectory": "circle"}"#);
        for i in 0..12 {
            let eye = head().inverse().transform_point3(stage.camera(&head(), i, 12).center());
            assert!((eye.z - 1.0).abs() < 1e-9 && (eye.x.hypot(eye.y - 0.02) - 0.3).abs() < 1e-9, "{eye}");
        }
        let stage = planned(r#"{"size": 64, "trajectory": "rig"}"#);
        let (found, before) = (stage.camera(&head(), 3, 12), stage.filmed.world_to_cam.inverse());
        let moved = found.center() - before.transform_point3(DVec3::ZERO);
        let up = -before.transform_vector3(DVec3::Y);
        assert!((moved - 0.02 * up).length() < 1e-12 && up.y > 0.9, "{moved}");
    }
}
