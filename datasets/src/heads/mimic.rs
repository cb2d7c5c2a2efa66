//! What an expression does to skin besides moving it: creases, and blood that comes and goes.
//!
//! None of it is in the geometry: creases are finer than the mesh, blood has no shape. So a picture holds something of
//! an expression that only its code can tell a renderer. Template coordinates and ARKit weights in, factors on the
//! reflectance out. Knows no light and no posed vertices.

use glam::Vec3;

use super::expression::Expression;
use super::identity::Identity;
use super::noise::{bump, lerp, smoothstep, value_noise};

/// What skin does at one moment; index 0 is the subject's left half.
pub struct Mimic {
    seed: u32,
    strength: f32,
    forehead: [f32; 2],
    inner_brow: f32,
    frown: f32,
    sneer: [f32; 2],
    squint: [f32; 2],
    smile: [f32; 2],
    drawn_down: [f32; 2],
    pucker: f32,
    chin: f32,
    flush: f32,
    pressed: f32,
    puffed: f32,
    is_still: bool,
}

impl Mimic {
    /// Of a person who makes this face.
    pub fn new(identity: &Identity, expression: &Expression) -> Self {
        let w = |name: &str| expression.get(name).unwrap_or(0.0).clamp(0.0, 1.0);
        let sides = |stem: &str| [w(&format!("{stem}Left")), w(&format!("{stem}Right"))];
        let mix = |parts: &[(&str, f32)]| -> [f32; 2] {
            let mut sum = [0.0f32; 2];
            for (stem, share) in parts {
                let weights = sides(stem);
                (0..2).for_each(|i| sum[i] += share * weights[i]);
            }
            sum.map(|x| x.min(1.2))
        };
        let mean = |both: [f32; 2]| 0.5 * (both[0] + both[1]);
        let smile = mix(&[("mouthSmile", 1.0), ("noseSneer", 0.55), ("mouthUpperUp", 0.5), ("mouthDimple", 0.5)]);
        let frown = mean(sides("browDown"));
        let stretched = mean(mix(&[("mouthStretch", 0.6), ("mouthPress", 0.9)]));
        let mut mimic = Self {
            seed: identity.seed as u32,
            strength: 0.5 + 0.7 * identity.age,
            forehead: sides("browOuterUp"),
            inner_brow: w("browInnerUp"),
            frown,
            sneer: sides("noseSneer"),
            squint: mix(&[("eyeSquint", 1.0), ("cheekSquint", 0.7), ("eyeBlink", 0.25), ("mouthSmile", 0.3)]),
            smile,
            drawn_down: mix(&[("mouthFrown", 1.0), ("mouthLowerDown", 0.4)]),
            pucker: (w("mouthPucker") + 0.5 * w("mouthFunnel")).min(1.0),
            chin: (w("mouthShrugLower") + 0.5 * mean(sides("mouthFrown"))).min(1.0),
            flush: (0.55 * mean(sides("mouthSmile"))
                + 0.6 * w("jawOpen")
                + 0.5 * frown
                + 0.4 * mean(sides("noseSneer")))
            .min(1.0),
            pressed: (w("mouthRollLower").max(w("mouthRollUpper")) + stretched).min(1.0),
            puffed: w("cheekPuff"),
            is_still: false,
        };
        let still = |list: &[f32]| list.iter().all(|x| *x < 0.02);
        mimic.is_still =
            [mimic.forehead, mimic.sneer, mimic.squint, mimic.smile, mimic.drawn_down].iter().all(|x| still(x))
                && still(&[
                    mimic.inner_brow,
                    mimic.frown,
                    mimic.pucker,
                    mimic.chin,
                    mimic.flush,
                    mimic.pressed,
                    mimic.puffed,
                ]);
        mimic
    }

    /// The factor on the reflectance at a template point of the face.
    pub fn factor(&self, t: Vec3) -> Vec3 {
        if self.is_still || t.z < 0.7 || !(6.1..8.2).contains(&t.y) {
            return Vec3::ONE;
        }
        let crease = (self.strength * self.creases(t)).clamp(-0.35, 0.62);
        // what is left of light in a crease has been through skin
        let dark = Vec3::ONE - crease * Vec3::new(0.72, 0.98, 1.0);
        dark * self.blood(t)
    }

    /// Depth of creases: 1 in a deep one, below 0 on the ridges beside.
    fn creases(&self, t: Vec3) -> f32 {
        let side = usize::from(t.x < 0.0);
        let (x, y) = (t.x.abs(), t.y);
        let wave = value_noise(Vec3::new(t.x * 5.0, y * 2.0, 0.3), self.seed ^ 0x31);
        let mut depth = 0.0;
        // forehead: lines that follow the lifted brow
        let lifted = self.inner_brow * bump(x, 0.0, 0.24) + self.forehead[side] * bump(x, 0.36, 0.2);
        if lifted > 0.02 {
            for (i, line) in [7.66, 7.76, 7.87, 7.98].into_iter().enumerate() {
                let bow = 0.05 * (x / 0.5).powi(2) - 0.02 * wave;
                let own = 0.7 + 0.3 * value_noise(Vec3::new(t.x * 3.0, i as f32 * 7.0, 1.0), self.seed ^ 0x32);
                depth += lifted * own * fold(y - line - bow, 0.013);
            }
        }
        // between the brows
        if self.frown > 0.02 && x < 0.3 {
            let tall = bump(y, 7.47, 0.062);
            depth += self.frown * tall * fold(x - 0.075 - 0.02 * wave, 0.012) * 1.1;
            depth += 0.6 * self.frown * bump(x, 0.0, 0.08) * fold(y - 7.36, 0.012);
        }
        // on the nose, slanting
        if self.sneer[side] > 0.02 && x < 0.26 {
            for line in [7.20, 7.26, 7.32] {
                depth += 0.8 * self.sneer[side] * bump(x, 0.10, 0.06) * fold(y - line + 0.45 * (x - 0.1), 0.010);
            }
        }
        // beside and below the eye
        let squint = self.squint[side];
        if squint > 0.02 && (0.15..0.85).contains(&x) {
            let (dx, dy) = (x - 0.45, y - 7.28);
            let (r, angle) = (dx.hypot(dy), dy.atan2(dx));
            let reach = smoothstep(0.05, 0.10, r) * smoothstep(0.26, 0.14, r) * smoothstep(-0.02, 0.05, dx);
            for line in [-0.62, -0.22, 0.18, 0.55] {
                depth += squint * reach * fold((angle - line - 0.06 * wave) * r, 0.010);
            }
            let below = smoothstep(0.14, 0.27, x) * smoothstep(0.50, 0.35, x);
            depth += 0.75 * squint * below * fold(y - 7.125 - 0.9 * (x - 0.31).powi(2), 0.013);
        }
        // from nose to mouth, and at its corner
        let smile = self.smile[side];
        if smile > 0.02 && (6.45..7.0).contains(&y) && x < 0.6 {
            // an arc from the wing of the nose around the corner of the mouth and back towards the chin
            let down = ((6.95 - y) / 0.45).clamp(0.0, 1.0);
            let line = 0.19 + 0.22 * down.powf(0.85) - 0.10 * down.powi(3) + 0.010 * wave;
            let slope = (0.19 - 0.30 * down * down) / 0.45;
            let away = (x - line) / slope.hypot(1.0);
            let length = smoothstep(6.97, 6.84, y) * smoothstep(6.47, 6.66, y);
            depth += smile * length * (0.85 * fold(away, lerp(0.011, 0.018, down)) + 0.22 * bump(away, 0.0, 0.05));
            // and a short one beside the corner
            let beside = bump(y, 6.66, 0.075);
            depth += 0.35 * smile * beside * fold(away - 0.085 + 0.25 * (y - 6.66).powi(2), 0.012);
        }
        let down = self.drawn_down[side];
        if down > 0.02 && (6.3..6.62).contains(&y) && x < 0.5 {
            let line = lerp(0.265, 0.33, smoothstep(6.60, 6.36, y));
            depth += down * smoothstep(6.33, 6.42, y) * smoothstep(6.61, 6.56, y) * fold(x - line, 0.014);
        }
        // around pursed lips: folds that run towards the mouth
        if self.pucker > 0.02 && x < 0.34 && (6.36..6.86).contains(&y) {
            let (dx, dy) = (t.x, (y - 6.60) * 1.25);
            let (r, angle) = (dx.hypot(dy), dy.atan2(dx));
            let ring = smoothstep(0.10, 0.15, r) * smoothstep(0.27, 0.19, r);
            depth += 0.55 * self.pucker * ring * (13.0 * angle + 1.5 * wave).cos().max(0.0).powi(3);
        }
        // a chin that is pushed up is cobbled
        if self.chin > 0.02 && x < 0.25 && (6.15..6.42).contains(&y) {
            let cobbles = value_noise(t * 22.0, self.seed ^ 0x33).max(0.0);
            depth += 0.8 * self.chin * bump(x, 0.0, 0.10) * bump(y, 6.29, 0.06) * cobbles;
            depth += 0.7 * self.chin * bump(x, 0.0, 0.14) * fold(y - 6.40 + 0.3 * x * x, 0.014);
        }
        depth
    }

    /// More blood darkens green and blue; where skin or lips are pressed, it is driven out.
    fn blood(&self, t: Vec3) -> Vec3 {
        if self.flush + self.pucker + self.puffed + self.pressed < 0.02 {
            return Vec3::ONE;
        }
        let x = t.x.abs();
        let near = |cx: f32, cy: f32, w: f32| bump(x, cx, w) * bump(t.y, cy, w);
        let cheeks = near(0.45, 6.94, 0.19);
        let face = cheeks + 0.7 * near(0.0, 6.95, 0.12) * smoothstep(1.4, 1.55, t.z) + 0.5 * near(0.0, 7.7, 0.25);
        let lips = bump(x, 0.0, 0.14) * bump(t.y, 6.60, 0.06) * smoothstep(1.38, 1.46, t.z);
        let more = 0.75 * self.flush * face + 0.35 * self.pucker * lips
            - 0.5 * self.puffed * cheeks
            - 0.75 * self.pressed * lips;
        (-more * Vec3::new(0.05, 0.34, 0.30)).exp()
    }
}

/// A fold across a distance: dark within `width`, a little light on its side.
fn fold(distance: f32, width: f32) -> f32 {
    // further off there is nothing to be seen of it
    if distance.abs() > 6.0 * width {
        return 0.0;
    }
    bump(distance, 0.0, width) - 0.30 * bump(distance, 2.4 * width, 1.3 * width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::testing::assets;

    #[test]
    fn a_still_face_has_none_and_each_half_its_own() {
        let identity = Identity::random(assets(), 3);
        let still = Mimic::new(&identity, &Expression::default());
        let beside = |x: f32| Vec3::new(x, 6.75, 1.4);
        assert_eq!(still.factor(beside(0.3)), Vec3::ONE);
        let mut smile = Expression::default();
        smile.add("mouthSmileLeft", 1.0).unwrap();
        let smile = Mimic::new(&identity, &smile);
        let darkest = |sign: f32| {
            (0..40).map(|i| smile.factor(beside(sign * (0.15 + 0.008 * i as f32))).y).fold(f32::INFINITY, f32::min)
        };
        assert!(darkest(1.0) < 0.75, "the fold beside the smiling half: {}", darkest(1.0));
        assert!(darkest(-1.0) > 0.85, "and none beside the other: {}", darkest(-1.0));
    }

    #[test]
    fn blood_comes_with_a_shout_and_leaves_pressed_lips() {
        let identity = Identity::random(assets(), 3);
        let of = |name: &str, at: Vec3| {
            let mut expression = Expression::default();
            expression.add(name, 1.0).unwrap();
            Mimic::new(&identity, &expression).factor(at)
        };
        let (cheek, lips) = (Vec3::new(0.45, 6.94, 1.2), Vec3::new(0.0, 6.60, 1.55));
        let (shout, pressed) = (of("jawOpen", cheek), of("mouthPress", lips));
        assert!(shout.y < 0.95 && shout.x > shout.y, "redder: {shout}");
        assert!(pressed.y > 1.05 && pressed.y > pressed.x, "paler: {pressed}");
    }
}
