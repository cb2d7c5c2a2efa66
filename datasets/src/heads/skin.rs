//! Skin: pigment and blood as a function of template coordinates, and the finer texture seen up close.
//!
//! Colours are linear RGB reflectances. Coarse variation is evaluated at the vertices, fine variation
//! ([`texture`]) per pixel. Knows no light.

use glam::Vec3;
use multiversion::multiversion;

use super::identity::Identity;
use super::noise::{bump, fractal_noise, lerp, smoothstep, spots, value_noise};
use super::{HeadAssets, regions};

/// Reflectance of skin with `melanin` and `redness` in [0, 1].
pub fn tone(melanin: f32, redness: f32) -> Vec3 {
    let fair = Vec3::new(0.74, 0.515, 0.415);
    let pigment = Vec3::new(2.25, 2.65, 2.95);
    let blood = Vec3::new(0.05, 0.30, 0.24);
    fair * (-(pigment * melanin + blood * redness)).exp()
}

/// Reflectance and gloss of every fine vertex of the body, inside of the mouth included.
pub fn vertices(assets: &HeadAssets, id: &Identity, scalp: &[f32], beard: &[f32]) -> (Vec<Vec3>, Vec<f32>) {
    let seed = id.seed as u32;
    let paint = |v: usize| {
        let t = assets.template[v];
        let r = &assets.regions;
        let x = t.x.abs();
        let near = |cx: f32, cy: f32, cz: f32, w: f32| bump(x, cx, w) * bump(t.y, cy, w) * bump(t.z, cz, 1.6 * w);
        let cheeks = near(0.45, 6.92, 1.25, 0.22);
        let nose = near(0.0, 6.92, 1.62, 0.13);
        let chin = near(0.0, 6.27, 1.45, 0.12);
        let under_eye = near(0.26, 7.14, 1.38, 0.075) + 0.6 * near(0.12, 7.24, 1.38, 0.05);
        let mottled = fractal_noise(t * 3.0, 3, seed);
        let redness = 0.35 * id.redness
            + 0.55 * cheeks * (0.35 + 0.8 * id.redness)
            + 0.75 * nose * (0.35 + 0.8 * id.redness)
            + 0.35 * chin
            + 0.6 * r.ears[v]
            + 0.45 * r.eyelids[v]
            + 0.16 * mottled;
        let melanin = id.melanin * (1.0 + 0.06 * fractal_noise(t * 1.7, 2, seed ^ 1))
            + 0.05 * r.eyelids[v]
            + (0.05 + 0.12 * id.age) * under_eye
            - 0.02 * bump(t.y, 7.8, 0.2);
        let mut colour = tone(melanin.max(0.0), redness.max(0.0));
        colour *= Vec3::new(1.0, 0.97, 1.02).lerp(Vec3::ONE, 1.0 - under_eye);
        let lip_filter = Vec3::new(0.90, 0.56, 0.57).lerp(Vec3::new(0.95, 0.76, 0.76), 1.0 - id.lip_tint);
        let lip = tone(lerp(id.melanin, 0.3, 0.18), 0.35) * lip_filter;
        colour = colour.lerp(lip, 0.92 * smoothstep(0.2, 0.75, r.lips[v]));
        // Stubble and shaved hair darken and cool the skin.
        let stubble = id.hair_colour * 0.6 + Vec3::new(0.02, 0.024, 0.03);
        let shadow = 0.45 * (id.beard * beard[v]) + 0.10 * smoothstep(0.5, 0.9, id.sex) * beard[v] * (1.0 - id.grey);
        colour = colour.lerp(stubble.lerp(colour, 0.35), shadow.min(1.0));
        let hair = id.hair_colour.lerp(Vec3::splat(0.36), id.grey);
        colour = colour.lerp(hair * 0.7, 0.78 * scalp[v]);
        let brow = regions::brow(t, id.brow).0;
        colour = colour.lerp(id.hair_colour.min(colour), 0.4 * brow * (1.0 - 0.5 * id.grey));
        let inside = smoothstep(0.3, 0.8, r.mouth[v]);
        colour = colour.lerp(Vec3::new(0.20, 0.045, 0.04), inside);
        let oily = near(0.0, 7.7, 1.45, 0.25) + near(0.0, 7.1, 1.55, 0.2) + 0.4 * cheeks;
        let gloss = 0.75 + 0.45 * oily + 0.9 * smoothstep(0.3, 0.8, r.lips[v]) + 1.4 * inside;
        (colour, gloss * (1.0 - 0.8 * scalp[v]))
    };
    (0..assets.template.len()).map(paint).unzip()
}

/// A factor on the reflectance at a template point: pores, blemishes, freckles. `strength` fades it with distance.
#[multiversion(targets("x86_64+avx2"))]
pub fn texture(t: Vec3, id: &Identity, strength: f32) -> Vec3 {
    let seed = id.seed as u32;
    let pores = 0.055 * value_noise(t * 34.0, seed ^ 2) + 0.045 * value_noise(t * 75.0, seed ^ 3);
    let patches = 0.05 * value_noise(t * 9.0, seed ^ 4);
    let spot = spots(t * 12.0, 0.012 + 0.05 * id.age, seed ^ 5);
    // where there can be none, nothing is looked for
    let freckle = match (id.freckles, smoothstep(0.6, 1.2, t.z)) {
        (0.0, _) | (_, 0.0) => 0.0,
        (many, front) => many * spots(t * 30.0, 0.5, seed ^ 7) * bump(t.y, 7.1, 0.3) * front,
    };
    let dark = Vec3::new(0.20, 0.30, 0.34) * spot + Vec3::new(0.20, 0.32, 0.40) * freckle;
    Vec3::ONE + strength * (Vec3::splat(pores) + Vec3::new(0.2, 1.0, 0.9) * patches - dark)
}

/// How strongly hair covers the skin at each fine vertex: (scalp, beard).
pub fn cover(assets: &HeadAssets, id: &Identity) -> (Vec<f32>, Vec<f32>) {
    let seed = id.seed as u32;
    let r = &assets.regions;
    let scalp = (0..assets.template.len())
        .map(|v| regions::scalp(assets.template[v], r.ears[v], id.receding, seed) * (1.0 - r.mouth[v]))
        .collect();
    let beard = (0..assets.template.len())
        .map(|v| regions::beard(assets.template[v], r.lips[v], r.ears[v]) * (1.0 - smoothstep(0.1, 0.4, r.mouth[v])))
        .collect();
    (scalp, beard)
}
