//! Haircuts: how a strand grows from its root, style by style.
//!
//! A strand starts along the skin's normal, turns into the flow of the style, falls, and is kept outside the shell of
//! the head. Strands gather towards the guide nearest to their root. Neutral pose, world metres.

use glam::Vec3;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::shell::Shell;
use super::{Root, Strands, strand_colour};
use crate::heads::identity::{HairStyle, Identity};
use crate::heads::noise::{bump, lerp, smoothstep, value_noise};
use crate::heads::regions;

/// How hair grows at one root.
#[derive(Clone, Copy)]
struct Cut {
    /// Metres.
    length: f32,
    /// Share of the normal in the first direction.
    lift: f32,
    /// Share of the old direction that survives a centimetre.
    stiffness: f32,
    /// Pull downwards per centimetre.
    gravity: f32,
    /// Thickness of the layer of hair over the skull, metres.
    layer: f32,
    /// Amplitude of waves, metres, and their length.
    wave: f32,
    wavelength: f32,
    /// How strongly tips gather.
    clump: f32,
    /// No hair below this height.
    lowest: f32,
    /// Pull towards the skull per centimetre.
    hug: f32,
    /// Whether it hangs beside the face and must not cross it.
    curtain: bool,
}

/// Strands for each square metre of scalp.
pub fn roots_per_area(id: &Identity) -> f32 {
    match id.hair {
        HairStyle::Buzz => 6.0e5,
        HairStyle::Crop => 4.6e5,
        HairStyle::Coils => 3.2e5,
        _ => 3.0e5,
    }
}

/// Where tied hair is gathered: on the back of the head.
fn knot(shell: &Shell) -> Vec3 {
    let back = Vec3::new(0.0, 0.16, -1.0).normalize();
    shell.centre + back * (shell.radius(shell.centre + back) + 0.012)
}

fn cut(id: &Identity, t: Vec3) -> Cut {
    use HairStyle as H;
    let (azimuth, elevation) = regions::angles(t);
    let top = smoothstep(22.0, 52.0, elevation + 0.10 * (azimuth - 60.0).max(0.0));
    let nape = smoothstep(100.0, 140.0, azimuth) * smoothstep(5.0, -35.0, elevation);
    let sideburn = bump(azimuth, 70.0, 14.0) * smoothstep(12.0, -5.0, elevation);
    let base = Cut {
        length: 0.03,
        lift: 0.5,
        stiffness: 0.75,
        gravity: 0.06,
        layer: 0.008,
        wave: 0.0005 + 0.003 * id.curl,
        wavelength: 0.03,
        clump: 0.35,
        lowest: -0.13,
        hug: 0.45,
        curtain: false,
    };
    let short = lerp(1.0, 0.30, (0.8 * nape + 0.9 * sideburn).min(1.0));
    let mut cut = match id.hair {
        H::Buzz => Cut { length: 0.006, lift: 0.75, layer: 0.001, clump: 0.0, wave: 0.0, ..base },
        H::Crop => Cut {
            length: lerp(0.014, 0.042, top) * short,
            lift: lerp(0.45, 0.7, top),
            layer: lerp(0.004, 0.014, top) * short,
            ..base
        },
        H::SideParted => Cut {
            length: lerp(0.026, 0.085, top) * short,
            lift: lerp(0.35, 0.75, top),
            layer: lerp(0.006, 0.020, top) * short,
            gravity: 0.05,
            wave: base.wave * 1.2,
            ..base
        },
        H::SweptBack => Cut {
            length: lerp(0.045, 0.10, top) * lerp(1.0, 0.6, nape) * lerp(1.0, 0.35, sideburn),
            lift: lerp(0.3, 0.7, top),
            layer: lerp(0.007, 0.020, top) * lerp(1.0, 0.6, nape),
            gravity: 0.04,
            ..base
        },
        H::Bob => Cut {
            length: 0.26,
            lift: 0.45,
            gravity: 0.14,
            layer: 0.019,
            wave: 0.001 + 0.002 * id.curl,
            wavelength: 0.07,
            lowest: -0.098,
            curtain: true,
            hug: 0.3,
            ..base
        },
        H::Wavy => Cut {
            length: 0.34,
            lift: 0.5,
            gravity: 0.13,
            layer: 0.024,
            wave: 0.0025 + 0.004 * id.curl,
            wavelength: 0.055,
            clump: 0.55,
            lowest: -0.142,
            curtain: true,
            hug: 0.2,
            ..base
        },
        H::Coils => Cut {
            length: lerp(0.022, 0.032, top) * lerp(1.0, 0.4, 0.5 * nape + 0.8 * sideburn),
            lift: 1.0,
            stiffness: 0.96,
            gravity: 0.0,
            hug: 0.0,
            layer: 0.0,
            wave: 0.0035,
            wavelength: 0.011,
            clump: 0.25,
            ..base
        },
        H::TiedBack => Cut {
            length: 0.19,
            lift: 0.25,
            stiffness: 0.45,
            gravity: 0.0,
            layer: 0.007,
            wave: 0.0002,
            wavelength: 0.05,
            ..base
        },
    };
    cut.length *= id.hair_length;
    if matches!(id.hair, H::Bob | H::Wavy) {
        cut.lowest = lerp(cut.lowest * 0.72, cut.lowest, (id.hair_length - 0.8) / 0.45);
    }
    cut
}

/// The way hair wants to lie at `p` (not normalised).
fn flow(id: &Identity, knot: Vec3, p: Vec3, up: Vec3) -> Vec3 {
    use HairStyle as H;
    let along = |v: Vec3| v - up * v.dot(up);
    let whorl = Vec3::new(-0.15 * id.parting, 0.72, -0.68).normalize();
    let away = along(up - whorl).normalize_or_zero();
    let top = smoothstep(0.45, 0.85, up.y);
    let front = smoothstep(0.0, 0.6, up.z);
    let parted = |line: f32, back: f32| {
        let side = ((p.x - line) / 0.010).clamp(-1.0, 1.0);
        let over = Vec3::new(side, -0.1, 0.0) + Vec3::new(0.0, 0.0, 0.30 - back) * front;
        let down = Vec3::new(0.12 * side, -1.0, -0.45 * front - 0.1);
        along(over * top + down * (1.0 - top)).normalize_or_zero()
    };
    match id.hair {
        H::Buzz | H::Crop => (away + along(Vec3::new(0.0, -0.2, 0.25))).normalize_or_zero(),
        H::SideParted => {
            let back = along(Vec3::new(0.0, -0.7, -0.6));
            parted(0.030 * id.parting, 0.45).lerp(back, 0.35 * (1.0 - top))
        }
        H::SweptBack => along(Vec3::new(0.25 * up.x, -0.25 - 0.5 * (1.0 - top), -1.0)).normalize_or_zero(),
        H::Bob => parted(0.004 * id.parting, 0.42),
        H::Wavy => parted(0.022 * id.parting, 0.40),
        H::Coils => up,
        H::TiedBack => along(knot - p).normalize_or_zero(),
    }
}

/// Moves a point that hangs in front of the face to its side.
fn beside_face(p: Vec3) -> Vec3 {
    let azimuth = p.x.abs().atan2(p.z);
    let least = 0.86 * smoothstep(0.075, 0.035, p.y) - 0.10 * smoothstep(-0.02, -0.10, p.y);
    if azimuth >= least {
        return p;
    }
    let flat = p.x.hypot(p.z);
    Vec3::new(flat * least.sin() * p.x.signum(), p.y, flat * least.cos())
}

/// Points of one strand before waves and clumping.
fn trace(id: &Identity, cut: &Cut, shell: &Shell, root: &Root, level: f32, points: usize) -> Vec<Vec3> {
    let knot = knot(shell);
    let ds = cut.length / (points - 1) as f32;
    let keep = cut.stiffness.powf(ds / 0.01);
    let mut p = root.position;
    let radial = |p: Vec3| (p - shell.centre).normalize_or_zero();
    let mut direction = root.normal.lerp(flow(id, knot, p, radial(p)), 1.0 - cut.lift).normalize_or_zero();
    let mut all = vec![p];
    let mut travelled = 0.0;
    for _ in 1..points {
        let wish = flow(id, knot, p, radial(p));
        direction =
            (direction * keep + wish * (1.0 - keep) + Vec3::NEG_Y * (cut.gravity * ds / 0.01)).normalize_or_zero();
        let mut q = p + direction * ds;
        travelled += ds;
        let floor = shell.radius(q) + 0.0012 + level * cut.layer * smoothstep(0.0, 0.03, travelled);
        let out = q - shell.centre;
        let high = out.length().max(1e-4);
        if q.y < -0.10 {
            // Ends hang freely in front of and behind the shoulders.
        } else if high < floor {
            q = shell.centre + out * (floor / high);
        } else {
            // Hair lies on hair: above the ears it is drawn towards the skull, below it hangs free.
            let pull = cut.hug * smoothstep(-0.05, 0.02, q.y);
            q = shell.centre + out * (lerp(high, floor, pull * (ds / 0.01).min(1.0)) / high);
        }
        if cut.curtain {
            q = beside_face(q);
        }
        direction = (q - p).normalize_or_zero();
        p = q;
        if p.y < cut.lowest || (id.hair == HairStyle::TiedBack && p.distance(knot) < 0.022) {
            all.push(p);
            break;
        }
        all.push(p);
    }
    all
}

/// Waves and coils across the strand; strands with the same phase move together.
fn wave(cut: &Cut, points: &mut [Vec3], phase: f32, out: Vec3) {
    if cut.wave <= 0.0 || points.len() < 3 {
        return;
    }
    let ds = points[0].distance(points[1]);
    let before = points.to_vec();
    for i in 1..points.len() {
        let along = (before[i] - before[i - 1]).normalize_or_zero();
        let side = along.cross(out).normalize_or_zero();
        let other = along.cross(side);
        let s = ds * i as f32;
        let strength = cut.wave * smoothstep(0.0, 1.2 * cut.wavelength, s);
        let angle = std::f32::consts::TAU * s / cut.wavelength + phase;
        points[i] += (side * angle.cos() + other * (0.6 * angle.sin())) * strength;
    }
}

/// Grows the whole head of hair.
pub(super) fn grow(id: &Identity, shell: &Shell, roots: &[Root], rng: &mut ChaCha8Rng) -> Strands {
    let mut strands = Strands::new();
    if roots.is_empty() {
        return strands;
    }
    let point_count = |cut: &Cut| {
        let coiled = if id.hair == HairStyle::Coils { 0.003 } else { 0.0085 };
        ((cut.length / coiled).ceil() as usize + 1).clamp(4, 34)
    };
    // Guides are ordinary strands; the others lean towards the nearest one.
    let guides: Vec<(Vec3, Vec<Vec3>, f32)> = roots
        .iter()
        .step_by((roots.len() / 500).max(1))
        .map(|root| {
            let cut = cut(id, root.template);
            let points = trace(id, &cut, shell, root, rng.random(), point_count(&cut));
            (root.position, points, std::f32::consts::TAU * rng.random::<f32>())
        })
        .collect();
    for root in roots {
        let mut cut = cut(id, root.template);
        cut.length *= 0.85 + 0.3 * rng.random::<f32>();
        if !cut.curtain {
            // Hair is shorter and finer at its edges.
            cut.length *= lerp(0.45, 1.0, smoothstep(0.1, 0.9, root.density));
        }
        cut.lowest += 0.014 * (rng.random::<f32>() - 0.3);
        // Some strands escape the layer.
        let level = rng.random::<f32>().powf(0.7) * if rng.random_bool(0.03) { 1.5 } else { 1.0 };
        let mut points = trace(id, &cut, shell, root, level, point_count(&cut));
        let nearest = guides.iter().map(|g| g.0.distance_squared(root.position)).enumerate();
        let (g, _) = nearest.min_by(|a, b| a.1.total_cmp(&b.1)).expect("at least one guide");
        let (guide_root, guide, phase) = &guides[g];
        let last = points.len() - 1;
        for i in 1..points.len() {
            let share = i as f32 / last as f32;
            let to = guide[i.min(guide.len() - 1)] + (root.position - *guide_root) * (1.0 - 0.6 * share);
            if i < guide.len() {
                points[i] = points[i].lerp(to, cut.clump * share);
            }
        }
        let own = if id.hair == HairStyle::Coils {
            std::f32::consts::TAU * rng.random::<f32>()
        } else {
            0.6 * rng.random::<f32>()
        };
        wave(&cut, &mut points, phase + own, root.normal);
        // Fine jitter so that strands do not run parallel.
        let lean = 0.05 + 0.03 * value_noise(root.position * 300.0, id.seed as u32);
        let jitter = Vec3::new(rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5) * lean;
        let ds = cut.length / last.max(1) as f32;
        for (i, p) in points.iter_mut().enumerate() {
            *p += jitter * (ds * i as f32).min(0.03);
        }
        strands.push(points, strand_colour(id, rng), 0.00034);
    }
    if id.hair == HairStyle::TiedBack {
        add_bun(id, knot(shell), &mut strands, rng);
    }
    strands
}

/// A knot of hair at the back.
fn add_bun(id: &Identity, knot: Vec3, strands: &mut Strands, rng: &mut ChaCha8Rng) {
    let centre = knot + Vec3::new(0.0, 0.004, -0.010);
    for _ in 0..2200 {
        let axis =
            Vec3::new(rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5, 1.6 + rng.random::<f32>()).normalize();
        let start = axis.any_orthonormal_vector();
        let other = axis.cross(start);
        let tilt = (rng.random::<f32>() - 0.5) * 1.6;
        let radius = 0.031 * (0.75 + 0.3 * rng.random::<f32>());
        let from = std::f32::consts::TAU * rng.random::<f32>();
        let points = (0..8).map(|i| {
            let a = from + 0.28 * i as f32;
            let ring = (start * a.cos() + other * a.sin()) * tilt.cos() + axis * tilt.sin();
            centre + ring * radius
        });
        let colour = strand_colour(id, rng);
        strands.push(points, colour, 0.00034);
    }
}
