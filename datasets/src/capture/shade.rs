//! What a surface looks like from somewhere: skin, shirt, eyes, teeth, and the film that records it.
//!
//! Light has been gathered before; here it is reflected towards the camera. Linear RGB in and out until [`encode`].

use glam::{Vec2, Vec3};
use std::sync::LazyLock;

use crate::heads::light::Environment;
use crate::heads::mimic::Mimic;
use crate::heads::noise::{bump, lerp, smoothstep, value_noise};
use crate::heads::pose::Material;
use crate::heads::{PosedHead, regions, skin};

use super::Attributes;

/// Iris radius as an angle at the eye's centre, radians, and the pupil's.
const IRIS: f32 = 0.50;
const PUPIL: f32 = 0.20;

/// Everything needed to paint surfaces for one camera.
pub struct Painter<'a> {
    posed: &'a PosedHead<'a>,
    environment: &'a Environment,
    mimic: Mimic,
    eye: Vec3,
}

/// Reflectance and gloss of a tooth vertex.
pub fn tooth(along: f32, depth: f32) -> (Vec3, f32) {
    let ivory = Vec3::new(0.66, 0.60, 0.49).lerp(Vec3::new(0.60, 0.50, 0.36), (1.0 - along) * 0.7);
    (ivory * lerp(1.0, 0.72, depth), 1.6)
}

impl<'a> Painter<'a> {
    /// For a camera whose centre is `eye`, world metres.
    pub fn new(posed: &'a PosedHead<'a>, eye: Vec3) -> Self {
        let mimic = Mimic::new(&posed.head.identity, &posed.expression);
        Self { posed, environment: posed.head.environment(), mimic, eye }
    }

    /// Light that leaves the surface towards the camera.
    pub fn surface(&self, material: Material, position: Vec3, a: &Attributes) -> Vec3 {
        let normal = Vec3::new(a[7], a[8], a[9]).normalize_or_zero();
        let view = (self.eye - position).normalize();
        let keys = [a[14], a[15], a[16], a[17]];
        let irradiance = Vec3::new(a[10], a[11], a[12]);
        let openness = a[13];
        match material {
            Material::Eye(e) => self.eyeball(e as usize, position, view, irradiance, keys),
            Material::Skin => {
                let t = Vec3::new(a[0], a[1], a[2]);
                if regions::below_collar(t) > 0.0 && t.y < 6.3 {
                    return self.shirt(t, irradiance);
                }
                let albedo = Vec3::new(a[3], a[4], a[5]);
                let fine = skin::texture(t, &self.posed.head.identity, 1.0) * self.mimic.factor(t);
                // Light bounces between folds and comes out redder.
                let bounce = (albedo * (1.0 - openness)) * 0.35;
                let diffuse = albedo * fine * irradiance * (Vec3::ONE + bounce) + albedo * albedo * 0.03;
                let gleam = 0.85 + 0.5 * (fine.x - 1.0) * 4.0;
                diffuse + self.gloss(normal, view, keys, openness, a[6] * gleam, 14.0, 55.0)
            }
            Material::Gum => {
                let flesh = Vec3::new(0.40, 0.13, 0.12);
                flesh * self.in_mouth(irradiance) + self.gloss(normal, view, keys, openness, 1.0, 20.0, 70.0)
            }
            Material::Tongue => {
                let t = Vec3::new(a[0], a[1], a[2]);
                let flesh = Vec3::new(0.44, 0.16, 0.15) * (1.0 + 0.12 * value_noise(t * 60.0, 9));
                flesh * self.in_mouth(irradiance) + self.gloss(normal, view, keys, openness, 0.8, 16.0, 60.0)
            }
            Material::Tooth => {
                let albedo = Vec3::new(a[3], a[4], a[5]);
                albedo * (self.in_mouth(irradiance) * 1.1 + 0.10)
                    + self.gloss(normal, view, keys, openness, 0.9, 30.0, 120.0)
            }
        }
    }

    /// Light between lips, teeth and tongue reaches far by bouncing.
    fn in_mouth(&self, irradiance: Vec3) -> Vec3 {
        irradiance + Vec3::new(0.13, 0.085, 0.075)
    }

    /// Highlights of the soft boxes: a broad and a narrow lobe, stronger at grazing angles.
    fn gloss(
        &self,
        n: Vec3,
        view: Vec3,
        keys: [f32; 4],
        openness: f32,
        strength: f32,
        broad: f32,
        narrow: f32,
    ) -> Vec3 {
        let mut sum = Vec3::ZERO;
        for (key, visible) in self.environment.keys.iter().zip(keys) {
            let cosine = n.dot(key.direction);
            if visible <= 0.0 || cosine <= 0.0 {
                continue;
            }
            let half = (key.direction + view).normalize_or_zero();
            let nh = n.dot(half).max(0.0);
            let fresnel = 0.028 + 0.97 * (1.0 - view.dot(half).clamp(0.0, 1.0)).powi(5);
            let lobe = 0.7 * (broad + 2.0) * nh.powf(broad) + 0.3 * (narrow + 2.0) * nh.powf(narrow);
            sum += key.radiance * (fresnel * lobe * cosine * visible * 0.055);
        }
        let rim = (1.0 - n.dot(view).clamp(0.0, 1.0)).powi(4);
        (sum + Vec3::splat(0.07 * rim * openness)) * strength
    }

    fn shirt(&self, t: Vec3, irradiance: Vec3) -> Vec3 {
        let weave = 1.0 + 0.10 * value_noise(t * 90.0, 21) + 0.08 * value_noise(t * 7.0, 22);
        let hem = 1.0
            - 0.35 * bump(regions::below_collar(t), 0.16, 0.012)
            - 0.25 * bump(regions::below_collar(t), 0.01, 0.012);
        self.posed.head.identity.shirt * irradiance * (weave * hem)
    }

    fn eyeball(&self, e: usize, position: Vec3, view: Vec3, irradiance: Vec3, keys: [f32; 4]) -> Vec3 {
        let id = &self.posed.head.identity;
        let radial = (position - self.posed.eye_centres[e]).normalize_or_zero();
        let gaze = self.posed.gaze[e];
        let cosine = radial.dot(gaze).clamp(-1.0, 1.0);
        let angle = cosine.acos();
        let r = angle / IRIS;
        let across = radial - gaze * cosine;
        let up = (Vec3::Y - gaze * gaze.y).normalize_or_zero();
        let turn = across.dot(up).atan2(across.dot(up.cross(gaze)));
        let seed = id.seed as u32 ^ 77;
        // White: warmer towards the corners, faint veins.
        let vein =
            smoothstep(0.35, 0.6, value_noise(radial * Vec3::new(14.0, 40.0, 14.0), seed)) * smoothstep(1.2, 2.6, r);
        let white = Vec3::new(0.66, 0.61, 0.57).lerp(Vec3::new(0.62, 0.44, 0.38), 0.55 * smoothstep(1.1, 2.8, r));
        let white = white * (1.0 - 0.25 * vein * Vec3::new(0.2, 1.0, 1.0));
        // Iris: fibres, a lighter ring, a dark rim.
        let spoke = Vec2::from_angle(turn);
        let fibre = value_noise(Vec3::new(spoke.x * 9.0, spoke.y * 9.0, r * 2.5), seed);
        let ring = 1.0 + 0.55 * bump(r, 0.58, 0.16) + 0.45 * fibre;
        let iris = id.iris * 1.25 * ring * (1.0 - 0.7 * smoothstep(0.78, 1.0, r));
        let pupil = smoothstep(PUPIL / IRIS + 0.05, PUPIL / IRIS - 0.03, r);
        let iris = iris.lerp(Vec3::splat(0.006), pupil);
        let albedo = iris.lerp(white, smoothstep(0.94, 1.08, r));
        // The iris lies behind the cornea and is lit from the far side.
        let caustic = 1.0 + 0.35 * smoothstep(1.0, 0.3, r) * -across.dot(self.environment.keys[0].direction) * 2.0;
        let light = irradiance * 0.92 + Vec3::splat(0.02);
        let cornea = (radial + across * (0.55 * smoothstep(1.15, 0.7, r))).normalize_or_zero();
        let mirrored = 2.0 * cornea.dot(view) * cornea - view;
        let fresnel = 0.025 + 0.9 * (1.0 - cornea.dot(view).clamp(0.0, 1.0)).powi(5);
        let seen = 0.25 + 0.75 * (keys[0].max(keys[1]) * 0.8 + 0.2);
        albedo * light * caustic.max(0.4) + self.environment.mirror(mirrored) * (fresnel * seen * 2.2)
    }
}

/// The film: a soft shoulder, so that highlights keep their colour.
pub fn tone_map(c: Vec3) -> Vec3 {
    let x = c * 1.0;
    let shoulder = |v: f32| {
        let v = v.max(0.0);
        if v < 0.6 { v } else { 0.6 + 0.4 * (1.0 - (-(v - 0.6) / 0.4).exp()) }
    };
    Vec3::new(shoulder(x.x), shoulder(x.y), shoulder(x.z))
}

/// One linear channel as an sRGB byte, by formula.
fn encoded(c: f32) -> u8 {
    let c = c.clamp(0.0, 1.0);
    let s = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
    (255.0 * s + 0.5) as u8
}

/// Where a look for a byte begins: parts of [0, 1].
const PARTS: usize = 1024;

/// The least light of each byte, and the byte at the beginning of each part.
static BYTES: LazyLock<([f32; 256], [u8; PARTS + 1])> = LazyLock::new(|| {
    let least = |byte: usize| {
        // as bits, numbers of one sign are in order
        let (mut below, mut reaches) = (0u32, 1.0f32.to_bits());
        while below < reaches {
            let middle = below + (reaches - below) / 2;
            if usize::from(encoded(f32::from_bits(middle))) >= byte {
                reaches = middle;
            } else {
                below = middle + 1;
            }
        }
        f32::from_bits(reaches)
    };
    (std::array::from_fn(least), std::array::from_fn(|part| encoded(part as f32 / PARTS as f32)))
});

/// One linear channel as an sRGB byte: a table in place of a power for each.
pub fn encode(c: f32) -> u8 {
    let (least, first) = &*BYTES;
    let c = c.clamp(0.0, 1.0);
    let mut byte = first[(c * PARTS as f32) as usize];
    while byte < 255 && c >= least[usize::from(byte) + 1] {
        byte += 1;
    }
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_formula_does() {
        for i in -1000..=1_001_000 {
            let c = i as f32 / 1_000_000.0;
            assert_eq!(encode(c), encoded(c), "{c}");
        }
        for byte in 1..=255 {
            let least = BYTES.0[byte];
            assert_eq!((encode(least), encode(least.next_down())), (byte as u8, byte as u8 - 1));
        }
        assert_eq!((encode(f32::NAN), encode(f32::INFINITY)), (0, 255));
    }
}
