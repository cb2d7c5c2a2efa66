//! The linear head model on disk, and its fit to point clouds.
//!
//! No stage, but what the stages of the linear head share. The fit goes round: nearest points of the model's surface,
//! then one ridge-regularised linear solve for coefficients and small motions of the poses together, as long as asked
//! (ICP with point-to-plane residuals and a small point-to-point part, so that points also stay in place along the
//! surface). Points that lie far off, and those next to a rim of the mesh, do not count. Of skin that was found again
//! it is known which place of the surface it is. Knows no networks and no truth.

use anyhow::{Context, Result};
use geometry::Mesh;
use geometry::distance::{Closest, MeshDistance};
use glam::Vec3;
use manifests::Type;
use models::nphm::pose::Pose;
use models::pca::PcaHead;
use models::weights;
use protocol::Table;
use std::path::Path;
use tch::{Kind, Tensor};

/// The column of a linear head model.
pub const COLUMNS: [(&str, Type); 1] = [("pca_model", Type::Blob)];

/// Reads the linear head of a table's only row.
///
/// # Errors
/// If the file is missing or of another kind.
pub fn read(table: &Table) -> Result<LinearHead> {
    let path = table.only().context("a linear head model is one row")?.path("pca_model")?;
    Ok(LinearHead::new(&PcaHead::from_tensors(&weights::read(&path)?, &path.display().to_string())?))
}

/// Writes a linear head.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, head: &PcaHead) -> Result<()> {
    Ok(weights::write(path, &head.tensors(), &Default::default(), weights::Precision::Keep)?)
}

/// A place of another model's canonical surface is on this one's of the same person if it is no further from it than
/// this, model units (7.5 mm).
const REACH: f32 = 0.03;
/// Skin counts in full up to this distance, model units (1 mm), and beyond as much less as it is further, as in a sum
/// of distances.
const NEAR: f32 = 0.004;

/// A linear head, laid out for fitting.
pub struct LinearHead {
    /// Vertices without coefficients, model units (25 cm).
    pub template: Vec<Vec3>,
    /// Triangles.
    pub faces: Vec<[u32; 3]>,
    /// Identity components.
    pub shapes: usize,
    /// Expression components.
    pub expressions: usize,
    /// By vertex, axis and component, identity first.
    basis: Vec<f32>,
    /// Whether a vertex lies at a rim of the mesh.
    rim: Vec<bool>,
}

/// What a head is like at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Expression coefficients, in standard deviations.
    pub expression: Vec<f64>,
    /// Where the head is.
    pub pose: Pose,
}

/// What was seen at one moment, world metres.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Points.
    pub points: Vec<Vec3>,
    /// Which of them may be hair or clothes over the head (`head_models::covering`); empty if none may.
    pub covering: Vec<bool>,
    /// Skin that was found again, and what it is of the surface.
    pub skin: Vec<(Vec3, Place)>,
}

/// A place of the surface, whatever its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    face: u32,
    bary: Vec3,
}

impl Seen {
    /// Whether a point is certainly of the head.
    pub fn is_bare(&self, i: usize) -> bool {
        !self.covering.get(i).copied().unwrap_or(false)
    }
}

/// How to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Rounds of nearest points and solving.
    pub rounds: usize,
    /// Of these at the start, rounds that move the poses alone.
    pub rigid_rounds: usize,
    /// Whether poses are sought; else they stay as given.
    pub rigid: bool,
    /// Points farther than this (model units) count as outliers: `[from share of rounds, threshold]`, ascending, as in
    /// the neural fit.
    pub trim: Vec<[f64; 2]>,
    /// How much a covering point counts while it lies outside the surface, as in the neural fit.
    pub covering: f64,
    /// Weight of point-to-point beside point-to-plane distances.
    pub in_place: f64,
    /// Weight of the mean squared distance of skin from where the surface has it.
    pub skin: f64,
    /// What a coefficient of one standard deviation costs, as a mean squared distance (model units).
    pub ridge: f64,
    /// Size of this head relative to the model's.
    pub scale: f64,
}

impl Default for Settings {
    fn default() -> Self {
        let models::nphm::FitConfig { trim, covering, skin, .. } = models::nphm::FitConfig::default();
        Self { rounds: 40, rigid_rounds: 10, rigid: true, trim, covering, in_place: 0.1, skin, ridge: 2e-7, scale: 1.0 }
    }
}

impl LinearHead {
    fn new(head: &PcaHead) -> Self {
        let floats = |t: &Tensor| -> Vec<f32> { t.reshape([-1]).try_into().expect("a float tensor") };
        let template: Vec<Vec3> =
            floats(&head.template).as_chunks().0.iter().map(|p: &[f32; 3]| Vec3::from(*p)).collect();
        let indices: Vec<i64> = head.faces.reshape([-1]).try_into().expect("an integer tensor");
        let faces: Vec<[u32; 3]> = indices.as_chunks().0.iter().map(|f: &[i64; 3]| f.map(|v| v as u32)).collect();
        let mut rim = vec![false; template.len()];
        let mesh = Mesh { positions: template, faces };
        mesh.boundary_vertices().into_iter().for_each(|v| rim[v as usize] = true);
        let Mesh { positions: template, faces } = mesh;
        let basis = floats(&Tensor::cat(&[&head.shape, &head.expression], 2));
        Self { template, faces, shapes: head.shape_shares.len(), expressions: head.expression_shares.len(), basis, rim }
    }

    /// The surface for coefficients, model space.
    pub fn mesh(&self, shape: &[f64], expression: &[f64]) -> Mesh {
        let all: Vec<f32> = shape.iter().chain(expression).map(|c| *c as f32).collect();
        let offset = |row: &[f32]| row.iter().zip(&all).map(|(b, c)| b * c).sum::<f32>();
        let move_vertex = |(v, p): (usize, &Vec3)| {
            let n = all.len();
            *p + Vec3::from([0, 1, 2].map(|axis| offset(&self.basis[(3 * v + axis) * n..][..n])))
        };
        let positions = self.template.iter().enumerate().map(move_vertex).collect();
        Mesh { positions, faces: self.faces.clone() }
    }

    /// What places of another model's canonical surface of a person, model units, are of this one's: the nearest, once
    /// they lie on it as well as they can without being bent. None where it is further away than [`REACH`].
    pub fn places(&self, shape: &[f64], canonical: &[Vec3]) -> Vec<Option<Place>> {
        let neutral = Moment { expression: vec![0.0; self.expressions], pose: Pose::default() };
        let mesh = self.mesh(shape, &neutral.expression);
        // where the frame of a canonical head lies is each model's own affair
        let points = canonical.iter().map(|p| Vec3::from(neutral.pose.to_world(p.to_array(), 1.0))).collect();
        let seen = Seen { points, ..Seen::default() };
        let settings = Settings { rounds: 30, rigid_rounds: 30, ..Settings::default() };
        let (_, laid) = self.fit(&[(&seen, neutral)], Some(shape), &settings);
        let tree = MeshDistance::new(&mesh);
        let place = |p: &Vec3| {
            let found = tree.closest(Vec3::from(laid[0].pose.to_model(p.to_array(), 1.0)))?;
            (found.distance <= REACH).then_some(Place { face: found.face, bary: found.bary })
        };
        seen.points.iter().map(place).collect()
    }

    /// Fits expressions and poses to clouds of one person (world, metres), and the identity with them unless it is
    /// `known`. Each cloud starts from its moment. Gives the identity coefficients and a moment for each cloud.
    pub fn fit(&self, seen: &[(&Seen, Moment)], known: Option<&[f64]>, settings: &Settings) -> (Vec<f64>, Vec<Moment>) {
        let mut shape = known.map_or_else(|| vec![0.0; self.shapes], <[f64]>::to_vec);
        let mut moments: Vec<Moment> = seen.iter().map(|(_, moment)| moment.clone()).collect();
        for round in 0..settings.rounds {
            let share = round as f64 / settings.rounds as f64;
            let trim = settings.trim.iter().rev().find(|[from, _]| share >= *from).map_or(f64::INFINITY, |[_, to]| *to);
            let rigid_only = settings.rigid && round < settings.rigid_rounds;
            let free_shape = if known.is_some() || rigid_only { 0 } else { self.shapes };
            let free_expression = if rigid_only { 0 } else { self.expressions };
            let motion = if settings.rigid { 6 } else { 0 };
            let own = free_expression + motion;
            let size = free_shape + seen.len() * own;
            if size == 0 {
                break;
            }
            let mut system = System::new(size);
            for (i, (seen, _)) in seen.iter().enumerate() {
                let moment = &moments[i];
                let from = free_shape + i * own;
                let places: Vec<usize> = (0..free_shape).chain(from..from + own).collect();
                let in_model = |p: &Vec3| Vec3::from(moment.pose.to_model(p.to_array(), settings.scale));
                let local: Vec<Vec3> = seen.points.iter().map(in_model).collect();
                let mesh = self.mesh(&shape, &moment.expression);
                let pairs = self.pairs(&local, |i| seen.is_bare(i), &mesh, trim as f32, settings.covering);
                let free = Free { shape: free_shape, expression: free_expression, motion };
                let coefficients = (&shape[..], &moment.expression[..]);
                let near = Residuals { pairs: &pairs, weight: 1.0, across: 1.0, in_place: settings.in_place };
                self.equations(&near, coefficients, &free, &places, &mut system);
                let skin: Vec<Pair> =
                    seen.skin.iter().map(|(p, place)| self.held(&mesh, in_model(p), *place)).collect();
                let known = Residuals { pairs: &skin, weight: settings.skin, across: 0.0, in_place: 1.0 };
                self.equations(&known, coefficients, &free, &places, &mut system);
            }
            for place in (0..free_shape).chain((0..seen.len()).flat_map(|i| {
                let from = free_shape + i * own;
                from..from + free_expression
            })) {
                // each cloud's mean counts once; so does an expression, and the identity once in all
                system.add(place, place, settings.ridge);
            }
            let solution = system.solve();
            if free_shape > 0 {
                shape.copy_from_slice(&solution[..free_shape]);
            }
            for (i, moment) in moments.iter_mut().enumerate() {
                let own = &solution[free_shape + i * own..][..own];
                if free_expression > 0 {
                    moment.expression.copy_from_slice(&own[..free_expression]);
                }
                if let [a, b, c, x, y, z] = own[free_expression..] {
                    moment.pose = moved(&moment.pose, [a, b, c], [x, y, z], settings.scale);
                }
            }
        }
        (shape, moments)
    }

    /// Points with what they are nearest to and what they count, without those at rims and farther than `trim`.
    fn pairs(
        &self,
        points: &[Vec3],
        is_bare: impl Fn(usize) -> bool,
        mesh: &Mesh,
        trim: f32,
        covering: f64,
    ) -> Vec<Pair> {
        let tree = MeshDistance::new(mesh);
        let at_rim = |found: &Closest| self.faces[found.face as usize].iter().any(|v| self.rim[*v as usize]);
        let pair = |(i, p): (usize, &Vec3)| {
            let found = tree.closest(*p).filter(|found| found.distance <= trim && !at_rim(found))?;
            let [a, b, c] = self.faces[found.face as usize].map(|v| mesh.positions[v as usize]);
            let normal = (b - a).cross(c - a).normalize_or_zero();
            let counts = if is_bare(i) || normal.dot(*p - found.point) <= 0.0 { 1.0 } else { covering };
            Some(Pair { point: *p, found, normal, counts })
        };
        points.iter().enumerate().filter_map(pair).collect()
    }

    /// A point of the skin with its place on the surface as it is; the less it counts the further it is away from
    /// there.
    fn held(&self, mesh: &Mesh, point: Vec3, Place { face, bary }: Place) -> Pair {
        let [a, b, c] = self.faces[face as usize].map(|v| mesh.positions[v as usize]);
        let at = a * bary.x + b * bary.y + c * bary.z;
        let distance = at.distance(point);
        let counts = f64::from(NEAR / distance.max(NEAR));
        Pair { point, found: Closest { point: at, face, bary, distance }, normal: Vec3::ZERO, counts }
    }

    /// Adds the normal equations of pairs, divided by what these count together.
    fn equations(
        &self,
        residuals: &Residuals<'_>,
        (shape, expression): (&[f64], &[f64]),
        free: &Free,
        places: &[usize],
        system: &mut System,
    ) {
        let Residuals { pairs, weight, across, in_place } = *residuals;
        let (all, width) = (self.shapes + self.expressions, places.len());
        let coefficients: Vec<f64> = shape.iter().chain(expression).copied().collect();
        // columns of the basis that are free; the others' share stays in the residual
        let columns: Vec<usize> = (0..free.shape).chain(self.shapes..self.shapes + free.expression).collect();
        let (mut rows, mut wanted) = (Vec::with_capacity(4 * pairs.len() * width), Vec::with_capacity(4 * pairs.len()));
        for Pair { point: p, found, normal, counts } in pairs {
            let corners = self.faces[found.face as usize];
            let offset = *p - found.point;
            for (direction, weight) in
                [(*normal, across), (Vec3::X, in_place), (Vec3::Y, in_place), (Vec3::Z, in_place)]
            {
                if weight == 0.0 {
                    continue;
                }
                let root = f64::sqrt(weight * counts);
                let mut residual = f64::from(direction.dot(offset));
                for &k in &columns {
                    let along = (0..3).map(|i| {
                        let at = |axis: usize| self.basis[(3 * corners[i] as usize + axis) * all + k];
                        found.bary[i] * direction.dot(Vec3::new(at(0), at(1), at(2)))
                    });
                    let along = f64::from(along.sum::<f32>());
                    // free coefficients are sought as a whole, so that the ridge draws them to 0
                    residual += along * coefficients[k];
                    rows.push(root * along);
                }
                if free.motion > 0 {
                    // p + w x p + t comes nearer: -d . (w x p) = -w . (p x d)
                    let turn = -p.cross(direction);
                    rows.extend([turn, -direction].into_iter().flat_map(|v| v.to_array()).map(|v| root * f64::from(v)));
                }
                wanted.push(root * residual);
            }
        }
        if pairs.is_empty() {
            return;
        }
        let rows = Tensor::from_slice(&rows).reshape([-1, width as i64]);
        let share = weight / pairs.iter().map(|pair| pair.counts).sum::<f64>().max(f64::MIN_POSITIVE);
        let left: Vec<f64> = (rows.tr().matmul(&rows) * share).reshape([-1]).try_into().expect("a double tensor");
        let right: Vec<f64> = (rows.tr().matmul(&Tensor::from_slice(&wanted).unsqueeze(1)) * share)
            .reshape([-1])
            .try_into()
            .expect("a double tensor");
        for i in 0..width {
            system.right[places[i]] += right[i];
            (0..width).for_each(|j| system.add(places[i], places[j], left[i * width + j]));
        }
    }
}

/// A point, model units, and the place of the surface that it is nearest to.
struct Pair {
    point: Vec3,
    found: Closest,
    normal: Vec3,
    /// Its weight.
    counts: f64,
}

/// Points with their places, and what counts of how far they are from there.
struct Residuals<'a> {
    pairs: &'a [Pair],
    /// Of their mean.
    weight: f64,
    /// Of the distance across the surface, and of that in space.
    across: f64,
    in_place: f64,
}

/// How many unknowns of each kind a cloud has.
struct Free {
    shape: usize,
    expression: usize,
    motion: usize,
}

/// Normal equations.
struct System {
    size: usize,
    left: Vec<f64>,
    right: Vec<f64>,
}

impl System {
    fn new(size: usize) -> Self {
        Self { size, left: vec![0.0; size * size], right: vec![0.0; size] }
    }

    fn add(&mut self, i: usize, j: usize, value: f64) {
        self.left[i * self.size + j] += value;
    }

    fn solve(mut self) -> Vec<f64> {
        let n = self.size as i64;
        // a motion that nothing holds (no pairs) stays 0
        let mean = (0..self.size).map(|i| self.left[i * self.size + i]).sum::<f64>() / self.size as f64;
        (0..self.size).for_each(|i| self.add(i, i, 1e-12 * mean.max(1e-12)));
        let left = Tensor::from_slice(&self.left).reshape([n, n]);
        let right = Tensor::from_slice(&self.right).reshape([n, 1]);
        Tensor::linalg_solve(&left, &right, true)
            .to_kind(Kind::Double)
            .reshape([-1])
            .try_into()
            .expect("a double tensor")
    }
}

/// The pose in which points of the model's frame lie turned by `turn` and shifted by `shift` (model units).
fn moved(pose: &Pose, turn: [f64; 3], shift: [f64; 3], scale: f64) -> Pose {
    let back = Pose { rotation: turn.map(|a| -a), translation: [0.0; 3] };
    let m = back.matrix();
    let shift = [0, 1, 2].map(|i| -(0..3).map(|k| m[i][k] * shift[k]).sum::<f64>());
    pose.corrected(back.rotation, shift, scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::init;

    /// A ball of which one component stretches x, another y and an expression moves the front.
    fn ball() -> LinearHead {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.4).collect::<Vec<f32>>();
        let mesh = geometry::band::extract(&field, Vec3::splat(-0.6), Vec3::splat(0.6), 25, 0);
        let n = mesh.positions.len() as i64;
        let flat: Vec<f32> = mesh.positions.iter().flat_map(|p| p.to_array()).collect();
        let template = Tensor::from_slice(&flat).reshape([n, 3]);
        let axis = |i: usize| template.get(0).zeros_like().index_fill(0, &Tensor::from_slice(&[i as i64]), 1.0);
        let stretch = |i: usize| &template * axis(i) * 0.1;
        let front = (template.select(1, 2) * 8.0 - 3.2).exp().unsqueeze(1) * axis(2) * 0.05;
        let faces: Vec<i64> = mesh.faces.iter().flatten().map(|v| i64::from(*v)).collect();
        LinearHead::new(&PcaHead {
            shape: Tensor::stack(&[stretch(0), stretch(1)], 2),
            expression: front.unsqueeze(2),
            template,
            faces: Tensor::from_slice(&faces).reshape([-1, 3]),
            shape_shares: vec![0.5, 0.5],
            expression_shares: vec![1.0],
        })
    }

    #[test]
    fn a_fit_finds_coefficients_and_pose() {
        let head = ball();
        let (shape, expression) = ([0.8, -0.6], [1.2]);
        let truth = Pose { rotation: [0.04, -0.05, 0.03], translation: [0.01, 0.02, -0.03] };
        let mesh = head.mesh(&shape, &expression);
        let drawn = geometry::distance::sample_surface(&mesh, 3000, 1);
        let mut points: Vec<Vec3> =
            drawn.iter().map(|s| Vec3::from(truth.to_world(s.position.to_array(), 1.0))).collect();
        // three in a hundred are nonsense
        let far: Vec<f32> = init::normal(1, 1, &[90 * 3]).try_into().unwrap();
        points.extend(far.as_chunks().0.iter().map(|p: &[f32; 3]| Vec3::from(*p) * 0.3));
        let start = Moment { expression: vec![0.0], pose: Pose::default() };
        let settings = Settings { ridge: 1e-9, ..Settings::default() };
        let seen = Seen { points, ..Seen::default() };
        let (found, moments) = head.fit(&[(&seen, start)], None, &settings);
        let off = found.iter().zip(shape).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 0.05 && (moments[0].expression[0] - 1.2).abs() < 0.05, "{found:?} {moments:?}");
        let world = |mesh: &Mesh, pose: &Pose| -> Vec<Vec3> {
            mesh.positions.iter().map(|p| Vec3::from(pose.to_world(p.to_array(), 1.0))).collect()
        };
        let fitted = world(&head.mesh(&found, &moments[0].expression), &moments[0].pose);
        let worst = fitted.iter().zip(world(&mesh, &truth)).map(|(a, b)| a.distance(b)).fold(0.0, f32::max);
        assert!(worst < 0.004, "the worst vertex is off by {worst} m");
    }

    #[test]
    fn a_head_is_sought_under_its_hair() {
        let head = ball();
        let shape = [0.5, -0.4];
        let mesh = head.mesh(&shape, &[0.0]);
        let drawn = geometry::distance::sample_surface(&mesh, 3000, 1);
        // more than half of the ball has hair of up to 4 mm, and every fifth point of it is the skin between
        let mut seen = Seen::default();
        for (i, sample) in drawn.iter().enumerate() {
            let p = sample.position;
            let covered = p.z < 0.15;
            let hair = if covered { 0.004 * (i % 5) as f32 } else { 0.0 };
            seen.points.push((p + p.normalize() * hair) / 4.0);
            seen.covering.push(covered);
        }
        let start = Moment { expression: vec![0.0], pose: Pose::default() };
        let off = |covering: f64| {
            let settings = Settings { ridge: 1e-9, rigid: false, covering, ..Settings::default() };
            let (found, _) = head.fit(&[(&seen, start.clone())], None, &settings);
            found.iter().zip(shape).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let (under, over) = (off(0.1), off(1.0));
        assert!(over > 0.1 && under < 0.5 * over, "{under}, with hair as skin {over}");
    }

    #[test]
    fn skin_tells_how_a_ball_turned() {
        let head = ball();
        let shape = [0.0, 0.0];
        // a ball looks the same however it is turned
        let truth = Pose { rotation: [0.0, 0.0, 0.1], translation: [0.0; 3] };
        let world = |p: Vec3| Vec3::from(truth.to_world(p.to_array(), 1.0));
        let mesh = head.mesh(&shape, &[0.0]);
        let drawn = geometry::distance::sample_surface(&mesh, 2000, 1);
        let points: Vec<Vec3> = drawn.iter().map(|s| world(s.position)).collect();
        let canonical: Vec<Vec3> = drawn[..200].iter().map(|s| s.position).collect();
        // the other model has its balls 5 mm further to the front
        let places = head.places(&shape, &canonical.iter().map(|p| *p + 0.02 * Vec3::Z).collect::<Vec<_>>());
        let off = canonical.iter().zip(&places).map(|(p, place)| head.held(&mesh, *p, place.unwrap()).found.distance);
        let off = off.fold(0.0, f32::max);
        assert!(off < 0.003, "{off}");
        let inner: Vec<Vec3> = canonical.iter().copied().chain([Vec3::ZERO]).collect();
        assert_eq!(head.places(&shape, &inner)[200], None, "the middle of the ball is not on it");
        let mut skin: Vec<(Vec3, Place)> =
            canonical.iter().zip(places).map(|(p, place)| (world(*p), place.unwrap())).collect();
        // a tenth was mistaken for skin on the other side
        for (p, _) in &mut skin[..20] {
            *p = -*p;
        }
        let start = Moment { expression: vec![0.0], pose: Pose::default() };
        let turn = |seen: &Seen| {
            let (_, moments) = head.fit(&[(seen, start.clone())], Some(&shape), &Settings::default());
            moments[0].pose.rotation[2]
        };
        let blind = Seen { points, ..Seen::default() };
        let (blind, told) = (turn(&blind), turn(&Seen { skin, ..blind.clone() }));
        assert!(blind.abs() < 0.03 && (told - 0.1).abs() < 0.01, "{blind}, with skin {told}");
    }

    #[test]
    fn a_known_identity_and_a_known_pose_stay() {
        let head = ball();
        let mesh = head.mesh(&[0.5, 0.5], &[-0.7]);
        let points: Vec<Vec3> =
            geometry::distance::sample_surface(&mesh, 2000, 1).iter().map(|s| s.position / 4.0).collect();
        let start = || Moment { expression: vec![0.0], pose: Pose::default() };
        let settings = Settings { ridge: 1e-9, rigid: false, ..Settings::default() };
        let points = Seen { points, ..Seen::default() };
        let seen = [(&points, start()), (&points, start())];
        let (shape, moments) = head.fit(&seen, Some(&[0.5, 0.5]), &settings);
        assert_eq!(shape, [0.5, 0.5]);
        assert!(
            moments.iter().all(|m| m.pose == Pose::default() && (m.expression[0] + 0.7).abs() < 0.02),
            "{moments:?}"
        );
        // no points at all: nothing moves
        let (shape, moments) = head.fit(&[(&Seen::default(), start())], None, &Settings::default());
        assert_eq!((shape, moments), (vec![0.0; 2], vec![start()]));
    }

    #[test]
    fn a_moved_pose_moves_points_of_the_model_frame() {
        let pose = Pose { rotation: [0.3, -0.2, 0.5], translation: [0.1, 0.2, -0.1] };
        let (turn, shift) = ([0.02, -0.03, 0.01], [0.05, 0.01, -0.02]);
        let after = moved(&pose, turn, shift, 1.1);
        let world = [0.07, 0.3, 0.02];
        let before = pose.to_model(world, 1.1).map(f64::from);
        let m = Pose { rotation: turn, translation: [0.0; 3] }.matrix();
        let expected = [0, 1, 2].map(|i| (0..3).map(|k| m[i][k] * before[k]).sum::<f64>() + shift[i]);
        let found = after.to_model(world, 1.1);
        assert!((0..3).all(|i| (f64::from(found[i]) - expected[i]).abs() < 1e-5), "{found:?} {expected:?}");
    }
}
