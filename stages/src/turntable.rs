//! `turntable`: a tracked sequence seen from a camera that goes once around it while it plays, as pictures for
//! `make_video`.
//!
//! reads: participant, sequence, timestep, mesh
//! writes: timestep, render
//!
//! On the left the mesh is shaded, on the right it has its canonical coordinates as colours: what belongs to a place of
//! the face keeps its colour however it moves. The sequence plays forwards and backwards in turn, since few begin as
//! they end. The camera keeps its height and distance, at which the head is whole in all frames. `timestep` counts the
//! pictures. Knows no images and no truth.

use crate::common::drawing::{Anchor, Look, WHITE, mesh_layer, place, plain, text};
use crate::common::head_models::BOX;
use crate::common::media::Image;
use crate::common::tracked;
use anyhow::{Context, Result, ensure};
use datasets::capture::look_at;
use geometry::{Camera, Mesh};
use glam::{DVec3, Vec3};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Pictures of the whole turn.
    #[serde(default = "pictures")]
    #[schemars(range(min = 1))]
    pictures: usize,
    /// Pictures that each frame of the sequence is shown in.
    #[serde(default = "hold")]
    #[schemars(range(min = 1))]
    hold: usize,
    /// Width and height of each of the two views, px; even, as video wants it.
    #[serde(default = "size")]
    #[schemars(range(min = 64))]
    size: usize,
}

fn pictures() -> usize {
    72
}
fn hold() -> usize {
    2
}
fn size() -> usize {
    256
}

/// Height of the strip of text above the views, px: below them lie the buttons of whatever plays the film.
const STRIP: usize = 24;
/// How much room there is around the head, as a fraction of its radius.
const ROOM: f64 = 0.06;
/// How far the camera is from the head's middle, metres.
const DISTANCE: f64 = 1.5;
/// How far above the head's middle it is, degrees.
const ELEVATION: f64 = 8.0;
const GREY: [f32; 3] = [205.0, 200.0, 192.0];

fn def() -> StageDef {
    StageDef::new("turntable", 2, Grain::Group)
        .doc("Pictures of a tracked sequence from a camera that goes around it while it plays.")
        .reads([("timestep", Type::I64), ("mesh", Type::Blob)])
        .writes([("timestep", Type::I64), ("render", Type::Blob)])
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    ensure!(
        params.size.is_multiple_of(2),
        "`size` is {}, expected an even number\nhint: video has no odd sizes",
        params.size
    );
    anyhow::Ok(Turntable { params })
});

struct Turntable {
    params: Params,
}

/// A frame of the sequence.
struct Posed {
    timestep: i64,
    mesh: Mesh,
    /// Of each vertex.
    colors: Vec<[f32; 3]>,
}

impl Posed {
    fn read(timestep: i64, path: &Path) -> Result<Posed> {
        let (mesh, canonical) = tracked::read_mesh(path)?;
        let level = |c: &[f32; 5], k: usize| (c[k] - BOX[0][k]) / (BOX[1][k] - BOX[0][k]);
        let color = |c: &[f32; 5]| std::array::from_fn(|k| 45.0 + 210.0 * level(c, k).clamp(0.0, 1.0));
        Ok(Posed { timestep, mesh, colors: canonical.iter().map(color).collect() })
    }
}

impl Stage for Turntable {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.turn(unit, cx)).collect()
    }
}

impl Turntable {
    fn turn(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let when = |row: &Row<'_>| -> Result<(i64, PathBuf)> { Ok((row.i64("timestep")?, row.path("mesh")?)) };
        let mut files = unit.rows().iter().map(when).collect::<Result<Vec<_>>>()?;
        files.sort_by_key(|(timestep, _)| *timestep);
        // one mesh at a time, twice: all of a long sequence are gigabytes
        let mesh = |(_, path): &(i64, PathBuf)| Ok(tracked::read_mesh(path)?.0);
        let (center, radius) = reach(&files, mesh)?.context("the meshes have no vertices")?;
        let count = self.params.pictures;
        let held: Vec<usize> = (0..count).step_by(self.params.hold).collect();
        let draw = |from: &usize| -> Result<Vec<OutRow>> {
            let (timestep, path) = &files[shown(from / self.params.hold, files.len())];
            let frame = Posed::read(*timestep, path)?;
            let one = |i: usize| {
                let path = cx.file(unit, &format!("{i:05}.png"));
                let angle = std::f64::consts::TAU * i as f64 / count as f64;
                picture(&frame, &camera(center, radius, angle, self.params.size))?.write_png(&path)?;
                Ok(OutRow::new().i64("timestep", i as i64).file("render", &path))
            };
            (*from..(from + self.params.hold).min(count)).map(one).collect()
        };
        let drawn = held.par_iter().map(draw).collect::<Result<Vec<_>>>()?;
        Ok(drawn.into_iter().flatten().collect())
    }
}

/// Which of `n` frames is shown as the `i`-th: forwards, backwards, and so on.
pub fn shown(i: usize, n: usize) -> usize {
    let period = (2 * n - 2).max(1);
    let i = i % period;
    i.min(period - i).min(n - 1)
}

/// The middle of all frames, and a radius around it that they stay within: of a cylinder about the vertical as well as
/// of its height. None if no frame has a vertex.
fn reach<F>(frames: &[F], mesh: impl Fn(&F) -> Result<Mesh>) -> Result<Option<(DVec3, f64)>> {
    let mut bounds: Option<(Vec3, Vec3)> = None;
    for frame in frames {
        if let Some((low, high)) = mesh(frame)?.bounds() {
            bounds = Some(bounds.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
        }
    }
    let Some((low, high)) = bounds else { return Ok(None) };
    let center = (low + high) / 2.0;
    let away = |p: &Vec3| {
        let d = (*p - center).as_dvec3();
        d.x.hypot(d.z).max(d.y.abs())
    };
    let mut radius = 0.0f64;
    for frame in frames {
        radius = mesh(frame)?.positions.iter().map(away).fold(radius, f64::max);
    }
    Ok(Some((center.as_dvec3(), radius)))
}

/// At an angle about the vertical from in front, to the right of the one who looks.
fn camera(center: DVec3, radius: f64, angle: f64, size: usize) -> Camera {
    let up = ELEVATION.to_radians();
    let eye = center + DISTANCE * DVec3::new(angle.sin() * up.cos(), up.sin(), angle.cos() * up.cos());
    let half = size as f64 / 2.0;
    // what is nearer than the middle looks larger
    let focal = half * (DISTANCE - radius) / (radius * (1.0 + ROOM));
    let k = [focal, 0.0, half, 0.0, focal, half, 0.0, 0.0, 1.0];
    Camera::from_row_major(&k, &look_at(eye, center).transpose().to_cols_array(), size as u32, size as u32)
}

fn picture(frame: &Posed, camera: &Camera) -> Result<Image> {
    let size = camera.width as usize;
    let mut image = plain(2 * size, size + STRIP, WHITE);
    for (i, colors) in [&[GREY][..], &frame.colors].into_iter().enumerate() {
        let look = Look { colors, opacity: 1.0, outline: None };
        place(&mut image, &mesh_layer(&frame.mesh, &look, camera).over(&plain(size, size, WHITE)), i * size, STRIP);
    }
    let baseline = STRIP - 8;
    text(&mut image, &format!("frame {}", frame.timestep), (size / 2, baseline), 9.0, Anchor::Middle)?;
    text(&mut image, "canonical coordinates", (size + size / 2, baseline), 9.0, Anchor::Middle)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_plays_forwards_and_backwards() {
        let order = |n| (0..8).map(|i| shown(i, n)).collect::<Vec<_>>();
        assert_eq!(order(1), [0; 8]);
        assert_eq!(order(2), [0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(order(4), [0, 1, 2, 3, 2, 1, 0, 1]);
    }

    #[test]
    fn the_head_is_whole_in_every_picture_and_turns() {
        // a box that is long in one direction, off the origin
        let corners: Vec<Vec3> =
            (0..8).map(|i| Vec3::new((i & 1) as f32, (i >> 1 & 1) as f32, (i >> 2) as f32)).collect();
        let positions: Vec<Vec3> =
            corners.iter().map(|c| Vec3::new(0.3 + 0.1 * c.x, 0.2 * c.y, -0.4 - 0.35 * c.z)).collect();
        let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
        let faces = quads.iter().flat_map(|[a, b, c, d]| [[*a, *b, *c], [*a, *c, *d]]).collect();
        let colors = corners.iter().map(|c| (*c * 200.0).to_array()).collect();
        let frame = Posed { timestep: 3, mesh: Mesh { positions, faces }, colors };
        let (center, radius) = reach(std::slice::from_ref(&frame), |frame| Ok(frame.mesh.clone())).unwrap().unwrap();
        let mut pictures = Vec::new();
        for i in 0..8 {
            let camera = camera(center, radius, f64::from(i) * std::f64::consts::TAU / 8.0, 96);
            let look = Look { colors: &[GREY], opacity: 1.0, outline: None };
            let coverage = mesh_layer(&frame.mesh, &look, &camera).coverage();
            let at_the_rim = |p: usize| [0, 95].contains(&(p % 96)) || [0, 95].contains(&(p / 96));
            assert!((0..96 * 96).all(|p| coverage[p] == 0.0 || !at_the_rim(p)), "picture {i}");
            assert!(coverage.iter().sum::<f32>() > 0.05 * 96.0 * 96.0, "picture {i}");
            pictures.push(picture(&frame, &camera).unwrap().data);
        }
        assert!((1..8).all(|i| pictures[i] != pictures[0]));
    }
}
