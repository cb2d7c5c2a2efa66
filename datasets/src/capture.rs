//! Films posed heads: pictures with coverage masks, and the rig of cameras around the head.
//!
//! Knows heads only through [`PosedHead`]. Writes no files; a [`Frame`] is raw pixels. Rendering is a pure function:
//! call it from as many threads as you like.

use geometry::Camera;
use glam::{Vec2, Vec3};

use crate::heads::pose::Material;
use crate::heads::{Placed, PosedHead, regions};

mod motion;
mod rig;
mod sensor;
mod shade;
mod strands;

pub use rig::{EXPOSURE, FRONTAL, SERIALS, look_at, portrait_camera, rig};
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

/// What a pixel shows. The numbers are those of a region picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Region {
    /// Nothing.
    Background = 0,
    /// Skin.
    Skin = 1,
    /// Eyeballs.
    Eyes = 2,
    /// Teeth, gums and tongue.
    Mouth = 3,
    /// Hair of the scalp.
    ScalpHair = 4,
    /// Brows, lashes and beard.
    FaceHair = 5,
    /// What is below the collar.
    Clothing = 6,
}

/// What there is to know about a picture, pixel by pixel.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelTruth {
    /// What the greater part of the pixel shows.
    pub regions: Vec<Region>,
    /// Where that goes until the later moment: px to the right and down; zero on the background. What is seen now may
    /// be hidden then.
    pub flow: Vec<[f32; 2]>,
}

/// What is known at a drawn vertex, packed so that a pixel reads three short rows.
type Attributes = [f32; 18];

/// The samples of a picture before they are averaged.
pub(crate) struct Samples {
    width: usize,
    height: usize,
    /// Light towards the camera; white where there is nothing.
    colour: Vec<Vec3>,
    /// Camera z, metres; 0 where there is nothing.
    depth: Vec<f32>,
    region: Vec<Region>,
    /// Where what is seen goes, samples; empty if nothing is known of a later moment.
    motion: Vec<Vec2>,
}

/// World to picture, in single precision.
pub(crate) struct Projection {
    view: glam::Mat4,
    intrinsics: glam::Mat3,
}

impl Projection {
    fn new(camera: &Camera) -> Self {
        Self { view: camera.world_to_cam.as_mat4(), intrinsics: camera.intrinsics.as_mat3() }
    }

    /// Place in the picture, px, and distance along the axis, metres.
    fn apply(&self, point: Vec3) -> (Vec2, f32) {
        let c = self.view.transform_point3(point);
        let k = &self.intrinsics;
        (Vec2::new(k.x_axis.x * c.x / c.z + k.z_axis.x, k.y_axis.y * c.y / c.z + k.z_axis.y), c.z)
    }

    /// Focal length, px.
    fn focal(&self) -> f32 {
        self.intrinsics.x_axis.x
    }
}

/// Renders a posed head that holds still, `supersample` x `supersample` samples a pixel (3 is good; 1 to 8).
pub fn render(posed: &PosedHead<'_>, camera: &Camera, supersample: u32) -> Frame {
    expose(camera, samples(posed, None, camera, supersample))
}

/// Renders a posed head that moves: `end` is where it is when the shutter closes, and what moves is blurred.
pub fn film(posed: &PosedHead<'_>, end: &Placed, camera: &Camera, supersample: u32) -> Frame {
    expose(camera, samples(posed, Some(end), camera, supersample))
}

/// Films moments in order: the next one is posed while one is shot, for to pose a head keeps one core busy and the
/// cameras all of them.
///
/// # Errors
/// The first of posing or keeping.
pub fn in_turn<P: Send + Sync, S: Send, E: Send>(
    moments: usize,
    pose: impl Fn(usize) -> Result<P, E> + Sync,
    shoot: impl Fn(usize, &P) -> S + Sync,
    mut keep: impl FnMut(usize, S) -> Result<(), E>,
) -> Result<(), E> {
    let posed = |moment: usize| (moment < moments).then(|| pose(moment)).transpose();
    let mut next = posed(0)?;
    let mut moment = 0;
    while let Some(now) = next {
        let (shot, then) = rayon::join(|| shoot(moment, &now), || posed(moment + 1));
        keep(moment, shot)?;
        next = then?;
        moment += 1;
    }
    Ok(())
}

/// What each pixel shows and where that goes until `later`; `supersample` as in [`render`].
pub fn pixel_truth(posed: &PosedHead<'_>, later: &Placed, camera: &Camera, supersample: u32) -> PixelTruth {
    let samples = samples(posed, Some(later), camera, supersample);
    let (w, h) = (camera.width as usize, camera.height as usize);
    let factor = samples.width / w.max(1);
    let mut truth = PixelTruth { regions: Vec::with_capacity(w * h), flow: Vec::with_capacity(w * h) };
    for pixel in 0..w * h {
        let inside = inside(pixel, w, factor);
        let mut counts = [0usize; 7];
        inside.clone().for_each(|at| counts[samples.region[at] as usize] += 1);
        let most = inside.clone().map(|at| samples.region[at]).max_by_key(|r| (counts[*r as usize], *r));
        let most = most.unwrap_or(Region::Background);
        let sum: Vec2 = inside.filter(|at| samples.region[*at] == most).map(|at| samples.motion[at]).sum();
        let mean = sum / (counts[most as usize] * factor).max(1) as f32;
        truth.regions.push(most);
        truth.flow.push(mean.to_array());
    }
    truth
}

/// The samples of a pixel of a picture `w` px wide.
fn inside(pixel: usize, w: usize, factor: usize) -> impl Iterator<Item = usize> + Clone {
    let (x, y) = (pixel % w, pixel / w);
    (0..factor * factor).map(move |s| (y * factor + s / factor) * w * factor + x * factor + s % factor)
}

fn samples(posed: &PosedHead<'_>, later: Option<&Placed>, camera: &Camera, supersample: u32) -> Samples {
    let factor = supersample.clamp(1, 8);
    let fine = camera.resized(camera.width * factor, camera.height * factor);
    let faces = posed.head.faces();
    let raster = geometry::raster::rasterize(&posed.drawn, &faces.triangles, &fine, 0.05);
    let attributes = attributes(posed);
    let painter = shade::Painter::new(posed, camera.center().as_vec3());
    let projection = Projection::new(&fine);
    let count = raster.tri_id.len();
    let mut samples = Samples {
        width: fine.width as usize,
        height: fine.height as usize,
        colour: vec![Vec3::ONE; count],
        depth: raster.depth,
        region: vec![Region::Background; count],
        motion: if later.is_some() { vec![Vec2::ZERO; count] } else { Vec::new() },
    };
    strands::draw(posed, later, &fine, &mut samples);
    for pixel in 0..count {
        let id = raster.tri_id[pixel];
        // what hair covers nobody sees
        if id < 0 || samples.region[pixel] != Region::Background {
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
        let material = faces.material(id as usize);
        samples.colour[pixel] = painter.surface(material, position, &mixed);
        samples.region[pixel] = region(material, Vec3::from_slice(&mixed[..3]));
        if let Some(later) = later {
            let then: Vec3 = (0..3).map(|k| later.drawn[corners[k]] * bary[k]).sum();
            samples.motion[pixel] = projection.apply(then).0 - projection.apply(position).0;
        }
    }
    samples
}

/// What a surface of this material is at a place of the template.
fn region(material: Material, template: Vec3) -> Region {
    match material {
        Material::Skin if regions::below_collar(template) > 0.0 => Region::Clothing,
        Material::Skin => Region::Skin,
        Material::Eye(_) => Region::Eyes,
        Material::Gum | Material::Tongue | Material::Tooth => Region::Mouth,
    }
}

/// The picture of samples: those of each pixel averaged (linear light) over white, after what moves was blurred.
fn expose(camera: &Camera, mut samples: Samples) -> Frame {
    for (colour, depth) in samples.colour.iter_mut().zip(&samples.depth) {
        // as it will be seen, before anything is averaged: else one bright highlight would fill its pixel, or its whole
        // path
        if *depth > 0.0 {
            *colour = shade::tone_map(*colour);
        }
    }
    let (colour, coverage) = motion::blur(&samples);
    let (w, h) = (camera.width as usize, camera.height as usize);
    let factor = samples.width / w.max(1);
    let mut frame = Frame { width: camera.width, height: camera.height, rgb: Vec::new(), alpha: Vec::new() };
    frame.rgb.reserve(3 * w * h);
    let share = 1.0 / (factor * factor) as f32;
    for pixel in 0..w * h {
        let inside = inside(pixel, w, factor);
        let mean = inside.clone().map(|at| colour[at]).sum::<Vec3>() * share;
        frame.rgb.extend([mean.x, mean.y, mean.z].map(shade::encode));
        frame.alpha.push((255.0 * inside.map(|at| coverage[at]).sum::<f32>() * share + 0.5) as u8);
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

    #[test]
    fn flow_leads_to_the_same_place_of_the_skin_and_regions_are_where_they_belong() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 4)).unwrap();
        let mut after = Expression { head: Vec3::new(0.03, 0.06, 0.0), ..Expression::default() };
        after.add("jawOpen", 0.3).unwrap();
        let (now, then) = (head.pose(&Expression::default()), head.pose(&after));
        let camera = portrait_camera(10.0, 0.0, 1.0, 160, 192);
        let truth = pixel_truth(&now, &head.place(&after), &camera, 1);
        // by other means: what part of the template lies where the flow leads to?
        let template = |posed: &PosedHead<'_>| {
            let faces = &posed.head.faces().triangles;
            let raster = geometry::raster::rasterize(&posed.drawn, faces, &camera, 0.05);
            let at = |(id, bary): (&i32, &[f32; 3])| {
                let corners = usize::try_from(*id).ok().map(|id| faces[id])?;
                Some((0..3).map(|k| posed.template(corners[k] as usize) * bary[k]).sum::<Vec3>())
            };
            raster.tri_id.iter().zip(&raster.bary).map(at).collect::<Vec<_>>()
        };
        let (before, after) = (template(&now), template(&then));
        let (mut same, mut skin, mut longest) = (0, 0, 0.0f32);
        for (pixel, (region, flow)) in truth.regions.iter().zip(&truth.flow).enumerate() {
            longest = longest.max(flow[0].hypot(flow[1]));
            if *region != Region::Skin {
                continue;
            }
            let to = |i: usize, size: usize| (i as f32 + 0.5 + if size == 160 { flow[0] } else { flow[1] }) as usize;
            let (x, y) = (to(pixel % 160, 160), to(pixel / 160, 192));
            let (Some(from), Some(Some(found))) = (before[pixel], after.get(y * 160 + x)) else { continue };
            skin += 1;
            // asset units are decimetres, a pixel is 2 mm
            same += usize::from(from.distance(*found) < 0.05);
        }
        assert!(skin > 3000 && same * 100 > skin * 95, "{same} of {skin} skin pixels are found again");
        assert!(longest > 4.0, "{longest} px");
        let share = |r: Region| truth.regions.iter().filter(|x| **x == r).count();
        assert!(share(Region::Eyes) > 20 && share(Region::ScalpHair) > 500 && share(Region::Background) > 5000);
        assert_eq!(truth.regions[0], Region::Background);
        assert_eq!(truth.regions[191 * 160 + 80], Region::Clothing);
    }

    #[test]
    fn a_head_that_stays_is_sharp_and_one_that_moves_is_not() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 4)).unwrap();
        let rest = Expression::default();
        let turned = Expression { head: Vec3::new(0.0, 0.05, 0.0), ..Expression::default() };
        let posed = head.pose(&rest);
        let camera = portrait_camera(0.0, 0.0, 1.0, 96, 96);
        let still = render(&posed, &camera, 2);
        assert_eq!(film(&posed, &head.place(&rest), &camera, 2), still);
        let moved = film(&posed, &head.place(&turned), &camera, 2);
        let edges = |f: &Frame| f.rgb.windows(4).map(|w| f64::from(w[0].abs_diff(w[3])).powi(2)).sum::<f64>();
        assert!(edges(&moved) < 0.93 * edges(&still), "{} of {}", edges(&moved), edges(&still));
    }
}
