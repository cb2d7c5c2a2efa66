//! Lids: a blink closes what is open and no more, and skin slides over an eyeball, never into it.
//!
//! The base mesh's units move the lids of the average face by fixed lengths. With eyes that are narrow or squint the
//! upper lid would pass the lower one by millimetres, and raised cheeks would draw the lower lid through the eyeball.
//! Knows the cage, its units and the eyeballs; neither hair nor light.

use std::collections::{BTreeSet, HashSet};

use glam::{Mat3, Vec3};

use super::expression::unit;
use super::pose::{Eyeball, vertices_of};
use super::{HeadAssets, Part, regions};

/// How far a closed upper lid lies below the edge of the lower one, asset units: light would get between edges that
/// only touch.
const OVERLAP: f32 = 0.006;
/// What is between an eyeball and skin that lies on it, metres.
const FILM: f32 = 0.0004;
/// Template distance from the middle of an eyeball within which skin may come to lie on it, asset units.
const NEAR: f32 = 0.40;
/// How far from the edge the lining of the socket can be seen, asset units.
const EDGE: f32 = 0.02;
/// How far from the middle of an eye, across, the lids are measured, asset units; in the corners they never part.
const ACROSS: f32 = 0.10;
/// How far from the edge of a lid its outside is looked at, asset units.
const WIDTH: f32 = 0.045;
/// Places at which an eyeball's profile is known, from straight ahead to straight back.
const STEPS: usize = 32;

/// A piece of the edge of a lid, between its outside and the lining of the socket.
pub struct Edge {
    /// The edge's ends, and a vertex of the lid's outside some millimetres from it (fine vertices, counter-clockwise):
    /// the small triangles at the edge itself turn over where the lid slides onto the cornea.
    pub triangle: [u32; 3],
    /// The middle of the edge in the template, asset units.
    pub place: Vec3,
    /// Whether it is the upper lid's.
    pub is_upper: bool,
}

/// The edges of all four lids, corners of the eyes left out.
pub fn edges(assets: &HeadAssets) -> Vec<Edge> {
    let t = &assets.template;
    let near = |tri: &[u32; 3]| regions::eye_distance(t[tri[0] as usize]) < 0.4;
    let body = assets.triangles[assets.triangles_of(Part::Body)].iter().filter(|tri| near(tri));
    let (lining, lids): (Vec<&[u32; 3]>, Vec<&[u32; 3]>) =
        body.partition(|tri| regions::in_socket(tri.map(|v| t[v as usize])));
    let inner: HashSet<[u32; 2]> = lining.iter().flat_map(|f| [[f[1], f[0]], [f[2], f[1]], [f[0], f[2]]]).collect();
    let ends = lids.iter().flat_map(|f| (0..3).map(|k| [f[k], f[(k + 1) % 3]])).filter(|ends| inner.contains(ends));
    let ends = ends.map(|ends| (ends, t[ends[0] as usize].midpoint(t[ends[1] as usize])));
    let ends = ends.filter(|(_, place)| place.x.abs() >= 0.20 && place.z >= 1.22);
    let edge = |([a, b], place): ([u32; 2], Vec3)| {
        let is_upper = place.y > 7.262 + 0.06 * (place.x.abs() - 0.17);
        let beyond = place + Vec3::Y * if is_upper { WIDTH } else { -WIDTH };
        let far = |v: &u32| t[*v as usize].distance_squared(beyond);
        let third = lids.iter().flat_map(|f| f.iter()).min_by(|a, b| far(a).total_cmp(&far(b)))?;
        Some(Edge { triangle: [a, b, *third], place, is_upper })
    };
    ends.filter_map(edge).collect()
}

/// How far the surface of an eyeball is from its middle, by the angle to where it looks: a sphere with a cornea.
struct Profile([f32; STEPS]);

impl Profile {
    /// Of points around the middle, of an eye that looks along +z.
    fn new(points: impl Iterator<Item = Vec3>) -> Self {
        let mut farthest = [0.0f32; STEPS];
        for p in points {
            let step = Self::step(p.normalize_or_zero().z).round() as usize;
            farthest[step] = farthest[step].max(p.length());
        }
        // a step without a point of its own is as far as the one before it, the first ones as the first that has one
        let mut before = farthest.into_iter().find(|far| *far > 0.0).unwrap_or(0.0);
        for far in &mut farthest {
            before = if *far > 0.0 { *far } else { before };
            *far = before;
        }
        Self(farthest)
    }

    fn step(cosine: f32) -> f32 {
        cosine.clamp(-1.0, 1.0).acos() / std::f32::consts::PI * (STEPS - 1) as f32
    }

    /// In a direction that has this cosine to where the eye looks.
    fn at(&self, cosine: f32) -> f32 {
        let step = Self::step(cosine);
        let (low, high) = (step.floor() as usize, step.ceil() as usize);
        self.0[low] + (self.0[high] - self.0[low]) * step.fract()
    }
}

/// A place of an upper lid's edge, and the one of the lower lid's below it.
struct Gap {
    /// Where it is across the template, asset units.
    x: f32,
    upper: u32,
    lower: [u32; 2],
    /// How far from the first to the second of `lower`.
    share: f32,
    /// By how much a whole blink of the average face narrows it, asset units.
    travel: f32,
}

impl Gap {
    /// How far it is open, asset units, where `height` says how high a fine vertex lies.
    fn width(&self, height: impl Fn(u32) -> f32) -> f32 {
        let [a, b] = self.lower.map(&height);
        height(self.upper) - (a + (b - a) * self.share)
    }
}

struct Lid {
    /// Which unit closes it.
    blink: usize,
    /// From one corner to the other.
    gaps: Vec<Gap>,
    profile: Profile,
    /// Fine vertices that may come to lie on the eyeball, and how much nearer to it than [`FILM`] each is in the
    /// neutral pose, metres.
    skin: Vec<(u32, f32)>,
    /// Fine vertices of the socket's lining that nobody sees.
    lining: Vec<u32>,
}

/// The lids of a person's left and right eye.
pub struct Lids([Lid; 2]);

impl Lids {
    /// Of a person whose fine vertices lie so in the neutral pose, world metres.
    pub fn new(assets: &HeadAssets, neutral: &[Vec3], eyes: &[Eyeball; 2]) -> Self {
        let edges = edges(assets);
        let body = &assets.triangles[assets.triangles_of(Part::Body)];
        let in_socket = |tri: &&[u32; 3]| regions::in_socket(tri.map(|v| assets.template[v as usize]));
        let (lining, outside): (Vec<&[u32; 3]>, Vec<&[u32; 3]>) = body.iter().partition(in_socket);
        let [lining, skin] = [lining, outside].map(|faces| BTreeSet::from_iter(faces.into_iter().flatten().copied()));
        let rim: Vec<Vec3> = skin.intersection(&lining).map(|v| assets.template[*v as usize]).collect();
        let lid = |side: usize| {
            let is_mine = |t: Vec3| (t.x > 0.0) == (side == 0);
            let blink = unit(["eyeBlinkLeft", "eyeBlinkRight"][side]).expect("a unit of ARKit");
            let mut moved = vec![Vec3::ZERO; assets.cage.len()];
            assets.face_units[blink].add_to(&mut moved, 1.0);
            let is_deep = |v: &u32| {
                let t = assets.template[*v as usize];
                is_mine(t) && rim.iter().all(|seen| t.distance(*seen) > EDGE)
            };
            let deep = lining.iter().copied().filter(is_deep).collect();
            let eye = eyes[side];
            let ball = vertices_of(assets, [Part::EyeLeft, Part::EyeRight][side]);
            let profile = Profile::new(ball.into_iter().map(|v| neutral[v] - eye.centre));
            let skin = skin.iter().copied().filter(|v| {
                let t = assets.template[*v as usize];
                is_mine(t) && regions::eye_distance(t) < NEAR
            });
            let nearer = |v: u32| {
                let from = neutral[v as usize] - eye.centre;
                (profile.at(from.normalize_or_zero().z) + FILM - from.length()).max(0.0)
            };
            let skin = skin.map(|v| (v, nearer(v))).collect();
            let mine: Vec<&Edge> = edges.iter().filter(|edge| is_mine(edge.place)).collect();
            let gaps = gaps(assets, &mine, |v| assets.subdivision.vertex(v as usize, &moved).y);
            Lid { blink, gaps, profile, skin, lining: deep }
        };
        Self([lid(0), lid(1)])
    }

    /// Moves a cage by its units (`weights` in the order of ARKit): upper lids last, for how far they have to go
    /// depends on what all else does to them.
    pub fn apply(&self, assets: &HeadAssets, weights: &[f32], cage: &mut [Vec3]) {
        for (i, (target, weight)) in assets.face_units.iter().zip(weights).enumerate() {
            if *weight != 0.0 && self.0.iter().all(|lid| lid.blink != i) {
                target.add_to(cage, *weight);
            }
        }
        for lid in self.0.iter().filter(|lid| weights[lid.blink] != 0.0) {
            let open = |gap: &Gap| gap.width(|v| assets.subdivision.vertex(v as usize, cage).y) + OVERLAP;
            let ways: Vec<f32> = lid.gaps.iter().map(|gap| (open(gap) / gap.travel).clamp(0.0, 2.0)).collect();
            let target = &assets.face_units[lid.blink];
            for (v, delta) in target.index.iter().zip(&target.delta) {
                cage[*v as usize] += *delta * (weights[lid.blink] * lid.way(&ways, assets.cage[*v as usize].x));
            }
        }
    }

    /// Lifts skin off the eyeballs, which are turned by `turns`, and keeps the lining of the sockets under it; fine
    /// vertices in world metres, the head in its neutral pose.
    pub fn lift(&self, eyes: &[Eyeball; 2], turns: &[Mat3; 2], vertices: &mut [Vec3]) {
        for ((lid, eye), turn) in self.0.iter().zip(eyes).zip(turns) {
            for (v, nearer) in &lid.skin {
                let p = &mut vertices[*v as usize];
                let (from, surface) = surface(*p, eye, turn, &lid.profile);
                let (distance, least) = (from.length(), surface + FILM - nearer);
                if distance < least && distance > 0.0 {
                    *p = eye.centre + from * (least / distance);
                }
            }
            for v in &lid.lining {
                let p = &mut vertices[*v as usize];
                let (from, surface) = surface(*p, eye, turn, &lid.profile);
                let distance = from.length();
                if distance > surface {
                    *p = eye.centre + from * (surface / distance);
                }
            }
        }
    }
}

/// A point from the middle of an eyeball, and how far the eyeball's surface is in that direction.
fn surface(p: Vec3, eye: &Eyeball, turn: &Mat3, profile: &Profile) -> (Vec3, f32) {
    let from = p - eye.centre;
    (from, profile.at(from.normalize_or_zero().dot(turn.z_axis)))
}

impl Lid {
    /// How far a blink goes at a place across the template, of how far it goes at each gap.
    fn way(&self, ways: &[f32], x: f32) -> f32 {
        let after = self.gaps.partition_point(|gap| gap.x <= x);
        match (after.checked_sub(1), ways.get(after)) {
            (Some(before), Some(next)) => {
                let share = (x - self.gaps[before].x) / (self.gaps[after].x - self.gaps[before].x);
                ways[before] + (next - ways[before]) * share
            }
            (Some(before), None) => ways[before],
            (None, next) => next.copied().unwrap_or(1.0),
        }
    }
}

/// The places at which the lids of one eye are measured, where `moved` says how far a blink moves a fine vertex up.
fn gaps(assets: &HeadAssets, edges: &[&Edge], moved: impl Fn(u32) -> f32) -> Vec<Gap> {
    let x = |v: u32| assets.template[v as usize].x;
    let ends = |is_upper: bool| {
        let mut ends: Vec<u32> =
            edges.iter().filter(|e| e.is_upper == is_upper).flat_map(|e| e.triangle[..2].to_vec()).collect();
        ends.sort_unstable_by(|a, b| x(*a).total_cmp(&x(*b)).then(a.cmp(b)));
        ends.dedup();
        ends
    };
    let lower = ends(false);
    let middle = |v: &u32| (x(*v).abs() - regions::eye_centre(assets.template[*v as usize]).x.abs()).abs() < ACROSS;
    let gap = |upper: u32| {
        let pair = lower.windows(2).find(|pair| x(pair[0]) <= x(upper) && x(upper) < x(pair[1]))?;
        let share = (x(upper) - x(pair[0])) / (x(pair[1]) - x(pair[0]));
        let gap = Gap { x: x(upper), upper, lower: [pair[0], pair[1]], share, travel: 0.0 };
        let travel = -gap.width(&moved);
        (travel > 0.02).then_some(Gap { travel, ..gap })
    };
    ends(true).into_iter().filter(middle).filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::testing::assets;
    use crate::heads::{Expression, Head, Identity};

    const FACES: [&[(&str, f32)]; 5] = [
        &[],
        &[("eyeSquint", 1.0)],
        &[("eyeSquint", 1.0), ("cheekSquint", 1.0), ("mouthSmile", 0.8)],
        &[("eyeWide", 1.0), ("eyeLookUp", 0.8)],
        &[("eyeLookDown", 1.0)],
    ];

    fn each(mut of: impl FnMut(&Head<'_>, &mut Expression)) {
        for seed in [2, 5, 18] {
            let head = Head::new(assets(), &Identity::random(assets(), seed)).unwrap();
            for face in FACES {
                let mut expression = Expression::default();
                face.iter().for_each(|(name, weight)| expression.add(name, *weight).unwrap());
                of(&head, &mut expression);
            }
        }
    }

    /// Widths of the gaps of both eyes, mm, and how far each lies from the middle of its eye, asset units.
    fn widths(head: &Head<'_>, expression: &Expression) -> Vec<(f32, f32)> {
        let (vertices, _) = head.geometry(expression);
        let lids = Lids::new(assets(), &head.neutral, &head.eyes);
        let gaps = lids.0.iter().flat_map(|lid| &lid.gaps);
        gaps.map(|gap| (1000.0 * gap.width(|v| vertices[v as usize].y), (gap.x.abs() - 0.308).abs())).collect()
    }

    #[test]
    fn a_blink_closes_whatever_eye_and_no_more() {
        each(|head, face| {
            let open = widths(head, face);
            face.add("eyeBlink", 0.5).unwrap();
            let half = widths(head, face);
            face.add("eyeBlink", 0.5).unwrap();
            let closed = widths(head, face);
            assert!(open.iter().fold(0.0f32, |w, x| w.max(x.0)) > 2.0, "{open:?}");
            for (((open, aside), (half, _)), (closed, _)) in open.iter().zip(half).zip(closed) {
                // towards the corners a slit may stay of eyes that are wide open and look up while they blink
                let most = if *aside < 0.06 { 0.4 } else { 1.6 };
                assert!((-1.6..most).contains(&closed), "{closed} mm at {aside} after a blink of {:?}", face.arkit);
                assert!((half - 0.5 * (open + closed)).abs() < 0.6, "{half} mm half way from {open}");
            }
        });
    }

    #[test]
    fn skin_slides_over_the_eyeball_and_the_lining_stays_below() {
        each(|head, face| {
            let lids = Lids::new(assets(), &head.neutral, &head.eyes);
            for blink in [0.0, 0.6, 1.0] {
                face.add("eyeBlink", blink).unwrap();
                let (vertices, _) = head.geometry(face);
                let turns = face.gaze().map(|(yaw, pitch)| Mat3::from_rotation_y(yaw) * Mat3::from_rotation_x(-pitch));
                for ((lid, eye), turn) in lids.0.iter().zip(&head.eyes).zip(&turns) {
                    assert!(lid.skin.len() > 500 && lid.lining.len() > 200, "{} {}", lid.skin.len(), lid.lining.len());
                    let above = |v: u32| {
                        let (from, surface) = surface(vertices[v as usize], eye, turn, &lid.profile);
                        from.length() - surface
                    };
                    assert!(lid.skin.iter().all(|(v, nearer)| above(*v) > FILM - nearer - 1e-6), "{:?}", face.arkit);
                    assert!(lid.lining.iter().all(|v| above(*v) < 1e-6), "{:?}", face.arkit);
                }
            }
        });
    }

    #[test]
    fn a_calm_face_is_the_persons_own() {
        let head = Head::new(assets(), &Identity::random(assets(), 5)).unwrap();
        let (vertices, _) = head.geometry(&Expression::default());
        let apart = |v: usize| vertices[v].distance(head.neutral[v]);
        assert!(vertices_of(assets(), Part::Body).into_iter().all(|v| apart(v) < 1e-6));
    }
}
