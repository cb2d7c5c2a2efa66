//! Films posed heads: pictures with coverage masks, and the rig of cameras around the head.
//!
//! Knows heads only through [`PosedHead`]. Writes no files; a [`Frame`] is raw pixels. Rendering is a pure function:
//! call it from as many threads as you like.

use geometry::Camera;
use glam::Vec3;

use crate::heads::PosedHead;

mod rig;
mod sensor;
mod shade;
mod strands;

pub use rig::{FRONTAL, SERIALS, look_at, portrait_camera, rig};
pub use sensor::Sensor;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// sRGB, row by row, three bytes a pixel, the head in front of white.
    pub rgb: Vec<u8>,
    /// Coverage, one byte a pixel: 255 wholly head.
    pub alpha: Vec<u8>,
}

/// What is known at a drawn vertex, packed so that a pixel reads three short rows.
type Attributes = [f32; 18];

/// Renders a posed head, `supersample` x `supersample` samples a pixel (3 is good; 1 to 8).
pub fn render(posed: &PosedHead<'_>, camera: &Camera, supersample: u32) -> Frame {
    let factor = supersample.clamp(1, 8);
    let fine = camera.resized(camera.width * factor, camera.height * factor);
    let faces = posed.head.faces();
    let raster = geometry::raster::rasterize(&posed.drawn, &faces.triangles, &fine, 0.05);
    let attributes = attributes(posed);
    let painter = shade::Painter::new(posed, camera.center().as_vec3());
    let mut colour = vec![Vec3::ONE; raster.tri_id.len()];
    for (pixel, out) in colour.iter_mut().enumerate() {
        let id = raster.tri_id[pixel];
        if id < 0 {
            continue;
        }
        let bary = raster.bary[pixel];
        let corners = faces.triangles[id as usize].map(|v| v as usize);
        let mut mixed = [0.0f32; 18];
        let mut position = Vec3::ZERO;
        for k in 0..3 {
            let row = &attributes[corners[k]];
            for (m, a) in mixed.iter_mut().zip(row) {
                *m += bary[k] * a;
            }
            position += posed.drawn[corners[k]] * bary[k];
        }
        *out = painter.surface(faces.material(id as usize), position, &mixed);
    }
    let mut depth = raster.depth;
    let mut covered: Vec<bool> = raster.tri_id.iter().map(|id| *id >= 0).collect();
    strands::draw(posed, &fine, &mut colour, &mut depth, &mut covered);
    resolve(camera, factor, &colour, &covered)
}

/// Averages the samples of each pixel (linear light) over white.
fn resolve(camera: &Camera, factor: u32, colour: &[Vec3], covered: &[bool]) -> Frame {
    let (w, h, f) = (camera.width as usize, camera.height as usize, factor as usize);
    let mut frame = Frame { width: camera.width, height: camera.height, rgb: Vec::new(), alpha: Vec::new() };
    frame.rgb.reserve(3 * w * h);
    let share = 1.0 / (f * f) as f32;
    for y in 0..h {
        for x in 0..w {
            let (mut sum, mut count) = (Vec3::ZERO, 0usize);
            for sy in 0..f {
                for sx in 0..f {
                    let at = (y * f + sy) * w * f + x * f + sx;
                    if covered[at] {
                        count += 1;
                        sum += shade::tone_map(colour[at]);
                    } else {
                        sum += Vec3::ONE;
                    }
                }
            }
            let mean = sum * share;
            frame.rgb.extend([mean.x, mean.y, mean.z].map(shade::encode));
            frame.alpha.push((255.0 * count as f32 * share + 0.5) as u8);
        }
    }
    frame
}

/// Template position, reflectance, gloss, normal, irradiance, openness, soft boxes.
fn attributes(posed: &PosedHead<'_>) -> Vec<Attributes> {
    let head = posed.head;
    let fine = head.albedo.len();
    let teeth = posed.teeth();
    let row = |v: usize| {
        let t = posed.template(v);
        let (albedo, gloss) = if v < fine {
            (head.albedo[v], head.gloss[v])
        } else if v - fine < teeth.len() {
            shade::tooth(teeth.along[v - fine], teeth.depth[v - fine])
        } else {
            (Vec3::ZERO, 0.2)
        };
        let (n, e, k) = (posed.normals[v], posed.lighting.irradiance[v], posed.lighting.keys[v]);
        [
            t.x,
            t.y,
            t.z,
            albedo.x,
            albedo.y,
            albedo.z,
            gloss,
            n.x,
            n.y,
            n.z,
            e.x,
            e.y,
            e.z,
            posed.lighting.openness[v],
            k[0],
            k[1],
            k[2],
            k[3],
        ]
    };
    (0..posed.drawn.len()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::testing::assets;
    use crate::heads::{Expression, Head, Identity};
    use crate::sequences::expression_at;
    use crate::truth::{Landmarks, truth};

    #[test]
    fn every_camera_sees_every_landmark_and_the_head_fills_the_frame() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 11)).unwrap();
        let posed = head.pose(&expression_at("EXP-1-head", 1.1, 11).unwrap());
        let truth = truth(&posed, &Landmarks::new(a));
        for (serial, camera) in rig(&SERIALS, 88, 128) {
            for p in &truth.landmarks {
                let (px, z) = camera.project(p.as_dvec3());
                let inside = px.x > 0.0 && px.y > 0.0 && px.x < 88.0 && px.y < 128.0 && z > 0.5;
                assert!(inside, "{serial} sees a landmark at {px}");
            }
        }
        let frame = render(&posed, &rig(&[FRONTAL], 64, 64)[0].1, 2);
        assert_eq!(frame, render(&posed, &rig(&[FRONTAL], 64, 64)[0].1, 2));
        let covered = |x: u32, y: u32| frame.alpha[(y * 64 + x) as usize];
        assert_eq!((covered(32, 32), covered(1, 1)), (255, 0));
        // Rows that show the head, from the first hair to the chin.
        let top = (0..64).find(|y| covered(32, *y) > 0).unwrap();
        assert!((3..14).contains(&top), "hair begins at row {top}");
        // White where nothing is, skin in the middle.
        assert_eq!(&frame.rgb[..3], [255, 255, 255]);
        let cheek = &frame.rgb[3 * (38 * 64 + 28)..][..3];
        assert!(cheek[0] > cheek[2] && cheek[0] < 255, "{cheek:?}");
    }

    #[test]
    fn light_does_not_depend_on_the_camera_and_pictures_do_on_the_expression() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 2)).unwrap();
        let mut open = Expression::default();
        open.add("jawOpen", 0.8).unwrap();
        let (shut, open) = (head.pose(&Expression::default()), head.pose(&open));
        assert_eq!(shut.lighting.irradiance, head.pose(&Expression::default()).lighting.irradiance);
        let camera = portrait_camera(0.0, 0.0, 1.0, 48, 48);
        let (x, y) = (render(&shut, &camera, 2), render(&open, &camera, 2));
        let difference = |rows: std::ops::Range<usize>| {
            rows.flat_map(|r| r * 144..(r + 1) * 144).map(|i| u64::from(x.rgb[i].abs_diff(y.rgb[i]))).sum::<u64>()
        };
        assert!(difference(28..44) > 20 * difference(4..14).max(1));
    }
}
