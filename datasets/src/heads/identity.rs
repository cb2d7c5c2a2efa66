//! Who a person is: shape, skin, eyes, hair, clothes; drawn from a seed.
//!
//! An identity is plain numbers. It knows neither expressions nor light; how the numbers become colours and strands is
//! in [`super::skin`] and [`super::hair`].

use glam::Vec3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::HeadAssets;

/// The cut of the hair on the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HairStyle {
    /// A few millimetres.
    Buzz,
    /// Two to four centimetres, brushed forwards.
    Crop,
    /// Longer on top, combed to one side.
    SideParted,
    /// Combed straight back.
    SweptBack,
    /// Straight to the jaw, parted in the middle.
    Bob,
    /// Wavy to the shoulders, parted on one side.
    Wavy,
    /// Dense short coils that stand away from the head.
    Coils,
    /// Pulled tightly to the back.
    TiedBack,
}

/// A person, as numbers. Fields may be changed freely within the ranges given.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Seeds whatever is not a number below: blemishes, single hairs.
    pub seed: u64,
    /// 0 the assets' female corner, 1 the male one.
    pub sex: f32,
    /// 0 about 25 years, 1 about 90.
    pub age: f32,
    /// 0 thin, 0.5 average, 1 heavy.
    pub build: f32,
    /// 0 average, 1 athletic.
    pub muscle: f32,
    /// Weights of the three ancestry corners of the assets, in the order of their files; they sum to one.
    pub ancestry: [f32; 3],
    /// One value in [-1, 1] for each of [`HeadAssets::sliders`].
    pub sliders: Vec<f32>,
    /// Skin pigment, 0 very fair, 1 very dark.
    pub melanin: f32,
    /// Skin redness, [0, 1].
    pub redness: f32,
    /// Strength of freckles, [0, 1].
    pub freckles: f32,
    /// Colour of the iris, linear RGB.
    pub iris: Vec3,
    /// Colour of the lips relative to the skin, 0 pale, 1 strong.
    pub lip_tint: f32,
    /// The haircut.
    pub hair: HairStyle,
    /// Which side a parting is on: +1 the subject's left, -1 the right.
    pub parting: f32,
    /// Scales the length of the hair, about [0.8, 1.25].
    pub hair_length: f32,
    /// How much strands wave, [0, 1].
    pub curl: f32,
    /// How far the hairline has moved back, [0, 1].
    pub receding: f32,
    /// Colour of a strand, linear RGB.
    pub hair_colour: Vec3,
    /// Share of grey strands, [0, 1].
    pub grey: f32,
    /// Density of the brows, [0, 1].
    pub brow: f32,
    /// Density of the beard, 0 shaved.
    pub beard: f32,
    /// Length of the beard in metres.
    pub beard_length: f32,
    /// Colour of the shirt, linear RGB.
    pub shirt: Vec3,
}

/// A standard normal number.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random::<f32>().max(1e-7), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

/// Picks an entry with the given relative weights.
fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [(f32, T)]) -> &'a T {
    let total: f32 = choices.iter().map(|c| c.0).sum();
    let mut at = rng.random::<f32>() * total;
    for (weight, value) in choices {
        at -= weight;
        if at < 0.0 {
            return value;
        }
    }
    &choices[choices.len() - 1].1
}

impl Identity {
    /// The average person: middle corners, no sliders, no beard.
    pub fn average(assets: &HeadAssets) -> Self {
        Self {
            seed: 0,
            sex: 0.5,
            age: 0.1,
            build: 0.5,
            muscle: 0.3,
            ancestry: [1.0 / 3.0; 3],
            sliders: vec![0.0; assets.sliders.len()],
            melanin: 0.3,
            redness: 0.4,
            freckles: 0.0,
            iris: Vec3::new(0.10, 0.045, 0.02),
            lip_tint: 0.5,
            hair: HairStyle::Crop,
            parting: 1.0,
            hair_length: 1.0,
            curl: 0.2,
            receding: 0.0,
            hair_colour: Vec3::new(0.055, 0.030, 0.016),
            grey: 0.0,
            brow: 0.6,
            beard: 0.0,
            beard_length: 0.0,
            shirt: Vec3::new(0.12, 0.15, 0.2),
        }
    }

    /// Draws a person. The same seed gives the same person, whatever was drawn before.
    pub fn random(assets: &HeadAssets, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0ef1_97a5);
        let rng = &mut rng;
        let mut id = Self { seed, ..Self::average(assets) };
        // Faces of one clear sex look less like mannequins than the average of both.
        id.sex = if rng.random_bool(0.5) { 0.08 } else { 0.92 } + 0.06 * normal(rng);
        id.sex = id.sex.clamp(0.0, 1.0);
        let male = id.sex > 0.5;
        id.age = (0.02 + 0.55 * rng.random::<f32>().powf(2.4)).clamp(0.0, 0.7);
        id.build = (0.47 + 0.14 * normal(rng)).clamp(0.1, 0.85);
        id.muscle = if male { 0.5 * rng.random::<f32>() } else { 0.2 * rng.random::<f32>() };
        let leading = rng.random_range(0..3);
        let mut shares = [0.0, 1.0, 2.0].map(|i| {
            let own: f32 = rng.random();
            if i as usize == leading { 1.6 + own } else { 0.8 * own * own }
        });
        let sum: f32 = shares.iter().sum();
        shares.iter_mut().for_each(|s| *s /= sum);
        id.ancestry = shares;
        id.draw_sliders(assets, rng);
        let pigment = shares[0] * 0.78 + shares[1] * 0.24 + shares[2] * 0.12;
        id.melanin = (pigment + 0.09 * normal(rng)).clamp(0.02, 0.95);
        id.redness = rng.random::<f32>();
        id.freckles = if id.melanin < 0.25 && rng.random_bool(0.3) { rng.random() } else { 0.05 * rng.random::<f32>() };
        id.lip_tint = if male { 0.35 } else { 0.6 } + 0.3 * rng.random::<f32>();
        id.draw_colours(rng);
        id.draw_hair(rng, male);
        id
    }

    fn draw_sliders(&mut self, assets: &HeadAssets, rng: &mut ChaCha8Rng) {
        for s in 0..assets.sliders.len() {
            let slider = &assets.sliders[s];
            let name = slider.name.as_str();
            // Independent noise must stay small for whole-head sliders, else skulls turn square; extreme nostrils fold.
            let (sigma, clip): (f32, f32) = match name.split('/').next() {
                Some("head" | "neck") => (0.13, 0.35),
                Some("nose") if name.contains("nostril") || name.contains("flaring") => (0.16, 0.3),
                Some("nose") => (0.2, 0.45),
                Some("ears") => (0.2, 0.6),
                _ => (0.24, 0.9),
            };
            let own = sigma * normal(rng);
            let mut value = match slider.twin {
                Some(left) => self.sliders[left] + 0.12 * own,
                None => own,
            };
            if name.contains("mouth-angles") {
                value += 0.15;
            }
            // Whole-head translations only move the camera's subject away.
            if name.contains("head-trans") || name.contains("neck-trans") {
                value = 0.0;
            }
            let low = if slider.negative.is_some() { -clip } else { 0.0 };
            let high = if slider.positive.is_some() { clip } else { 0.0 };
            self.sliders[s] = value.clamp(low, high);
        }
    }

    fn draw_colours(&mut self, rng: &mut ChaCha8Rng) {
        let m = self.melanin;
        let fair = (1.0 - m / 0.35).clamp(0.0, 1.0);
        let brown = Vec3::new(0.11, 0.048, 0.02);
        self.iris = *pick(
            rng,
            &[
                (0.5 + 3.0 * m, brown),
                (0.4, Vec3::new(0.055, 0.026, 0.013)),
                (0.9 * fair, Vec3::new(0.085, 0.15, 0.22)),
                (0.5 * fair, Vec3::new(0.10, 0.125, 0.06)),
                (0.5 * fair, Vec3::new(0.15, 0.085, 0.03)),
                (0.5 * fair, Vec3::new(0.13, 0.16, 0.18)),
            ],
        ) * (0.8 + 0.4 * rng.random::<f32>());
        let black = Vec3::new(0.014, 0.011, 0.009);
        self.hair_colour = *pick(
            rng,
            &[
                (0.6 + 2.0 * m, black),
                (0.9, Vec3::new(0.045, 0.025, 0.014)),
                (0.9 * fair, Vec3::new(0.13, 0.072, 0.036)),
                (1.0 * fair, Vec3::new(0.36, 0.23, 0.11)),
                (0.35 * fair, Vec3::new(0.21, 0.082, 0.030)),
            ],
        ) * (0.8 + 0.4 * rng.random::<f32>());
        self.grey = ((self.age - 0.30) * 2.6 + 0.12 * normal(rng)).clamp(0.0, 0.95);
        if self.age < 0.22 {
            self.grey = 0.0;
        }
        let value = 0.02 + 0.5 * rng.random::<f32>().powi(2);
        let (r, g, b): (f32, f32, f32) = (rng.random(), rng.random(), rng.random());
        self.shirt = Vec3::splat(value) * (Vec3::splat(0.55) + 0.6 * Vec3::new(r, g, b));
    }

    fn draw_hair(&mut self, rng: &mut ChaCha8Rng, male: bool) {
        use HairStyle as H;
        let coily = 1.4 * self.ancestry[0];
        self.hair = *pick(
            rng,
            &if male {
                [
                    (0.7, H::Buzz),
                    (1.3, H::Crop),
                    (1.2 - 0.8 * self.ancestry[0], H::SideParted),
                    (0.8 - 0.6 * self.ancestry[0], H::SweptBack),
                    (0.1, H::Bob),
                    (0.15, H::Wavy),
                    (coily, H::Coils),
                    (0.15, H::TiedBack),
                ]
            } else {
                [
                    (0.12, H::Buzz),
                    (0.35, H::Crop),
                    (0.4, H::SideParted),
                    (0.2, H::SweptBack),
                    (1.5 - 1.2 * self.ancestry[0], H::Bob),
                    (1.5 - 0.8 * self.ancestry[0], H::Wavy),
                    (coily, H::Coils),
                    (1.2, H::TiedBack),
                ]
            },
        );
        self.parting = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        self.hair_length = 0.8 + 0.45 * rng.random::<f32>();
        self.curl = rng.random::<f32>().powf(1.5) * 0.7;
        self.receding = if male { (0.9 * self.age - 0.1 + 0.15 * normal(rng)).clamp(0.0, 0.7) } else { 0.0 };
        self.brow = if male { 0.65 } else { 0.45 } + 0.35 * rng.random::<f32>();
        if male && rng.random_bool(0.55) {
            let full = rng.random_bool(0.5);
            self.beard = if full { 0.6 + 0.4 * rng.random::<f32>() } else { 0.25 + 0.3 * rng.random::<f32>() };
            self.beard_length = if full { 0.003 + 0.007 * rng.random::<f32>() } else { 0.0015 };
        }
    }

    /// The neutral cage of this person, asset units, same vertices as [`HeadAssets::cage`].
    pub fn cage(&self, assets: &HeadAssets) -> Vec<Vec3> {
        let mut cage = assets.cage.clone();
        let pair = |x: f32| [1.0 - x, x];
        let (sex, age, muscle) = (pair(self.sex), pair(self.age), pair(self.muscle));
        let b = self.build.clamp(0.0, 1.0);
        let build = [(1.0 - 2.0 * b).max(0.0), 1.0 - (2.0 * b - 1.0).abs(), (2.0 * b - 1.0).max(0.0)];
        for s in 0..2 {
            for g in 0..2 {
                for a in 0..3 {
                    let w = self.ancestry[a] * sex[s] * age[g];
                    assets.ancestry_corners[(a * 2 + s) * 2 + g].add_to(&mut cage, w);
                }
                for m in 0..2 {
                    for (w, weight) in build.iter().enumerate() {
                        let corner = &assets.build_corners[((s * 2 + g) * 2 + m) * 3 + w];
                        corner.add_to(&mut cage, sex[s] * age[g] * muscle[m] * weight);
                    }
                }
            }
        }
        for (slider, value) in assets.sliders.iter().zip(&self.sliders) {
            let target = if *value < 0.0 { &slider.negative } else { &slider.positive };
            if let Some(target) = target {
                target.add_to(&mut cage, value.abs());
            }
        }
        cage
    }
}
