//! Tracking: codes and rigid poses that explain point clouds of one person (NPHM's point-cloud fitting with a
//! backward model, so that no roots are sought, and with a pose per frame). Knows no cameras, images or files. Clouds are in world
//! metres; `x_world = R (s x_model / 4) + t`.

use super::field::{HeadModel, Person};
use super::identity::Far;
use super::pose::{self, Pose};
use crate::adamw::{AdamW, Group};
use crate::init;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What was observed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// Surface points, world metres.
    pub points: Vec<[f32; 3]>,
    /// Unit outward normals of `points`; empty if unknown.
    pub normals: Vec<[f32; 3]>,
    /// Points known to lie outside, such as points between a camera and what it saw; may be empty.
    pub outside: Vec<[f32; 3]>,
}

/// The state of one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Expression code.
    pub z_ex: Vec<f32>,
    /// Head pose.
    pub pose: Pose,
    /// Mean |F| (model units, 25 cm) over the points that the last trimming threshold kept; 0 before fitting.
    pub residual: f64,
    /// Share of points that it kept; 0 before fitting.
    pub kept: f64,
}

/// What fitting several frames of one person gives.
#[derive(Clone, Debug)]
pub struct PersonFit {
    /// Identity code.
    pub z_id: Vec<f32>,
    /// A state per frame, in the order given.
    pub frames: Vec<Frame>,
}

/// Loss weights, rates and schedule of a fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FitConfig {
    /// Updates.
    pub steps: usize,
    /// Points drawn from every cloud at each step.
    pub points: usize,
    /// How many of them are also asked for their normals, which costs three times as much.
    pub normal_points: usize,
    /// Points drawn from every cloud's outside.
    pub outside_points: usize,
    /// `s`: size of this head relative to the model's.
    pub scale: f64,
    /// Points with a larger |F| than this count as outliers: `[from share of steps, threshold]`, ascending.
    pub trim: Vec<[f64; 2]>,
    /// Weight of mean |F|.
    pub surface: f64,
    /// Weight of 1 - cos between observed and modelled normals.
    pub normals: f64,
    /// Weight of relu(0.01 - F) at outside points.
    pub outside: f64,
    /// Prior on |z_id|^2.
    pub z_id: f64,
    /// Prior on the asymmetry of paired codes.
    pub symmetry: f64,
    /// Prior on |z_ex|^2.
    pub z_ex: f64,
    /// Weight of squared changes of z_ex: between neighbouring frames, or from the state a single frame starts at.
    pub smooth_z_ex: f64,
    /// Weight of squared corrections of the pose (radians, model units) from where it started.
    pub smooth_pose: f64,
    /// Learning rate of codes; halved at one half and three quarters, as are the others.
    pub rate_codes: f64,
    /// Learning rate of rotations, radians.
    pub rate_rotation: f64,
    /// Learning rate of translations, model units.
    pub rate_translation: f64,
    /// Decides which points are drawn.
    pub seed: u64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            points: 300,
            normal_points: 100,
            outside_points: 100,
            scale: 1.0,
            trim: vec![[0.0, 0.1], [0.25, 0.05], [0.5, 0.02]],
            surface: 2.0,
            normals: 0.1,
            outside: 0.5,
            z_id: 0.02,
            symmetry: 0.005,
            z_ex: 0.01,
            smooth_z_ex: 1e-3,
            smooth_pose: 0.0,
            rate_codes: 1e-2,
            rate_rotation: 5e-3,
            rate_translation: 2.5e-3,
            seed: 0,
        }
    }
}

impl FitConfig {
    /// Settings for a frame that starts at its predecessor's state and has a known identity.
    pub fn frame() -> Self {
        Self { steps: 50, points: 400, trim: vec![[0.0, 0.05], [0.4, 0.02]], smooth_z_ex: 0.01, ..Self::default() }
    }

    /// Trimming threshold at a step.
    fn threshold(&self, step: usize) -> f64 {
        let share = step as f64 / self.steps.max(1) as f64;
        self.trim.iter().rev().find(|[from, _]| share >= *from).map_or(f64::INFINITY, |[_, threshold]| *threshold)
    }
}

/// Fits one identity code, and an expression code and a pose for every frame, jointly. `frames` pairs clouds with initial states
/// (an empty `z_ex` is the neutral 0). `progress` is told each finished step and its loss.
pub fn fit_identity(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    config: &FitConfig,
    progress: &mut dyn FnMut(usize, f64),
) -> PersonFit {
    let z_id =
        Tensor::zeros([1, model.config.identity.d_id()], (Kind::Float, model.vs.device())).set_requires_grad(true);
    let states = optimize(model, frames, None, Some(&z_id), config, progress);
    PersonFit { z_id: to_vec(&z_id), frames: states }
}

/// Fits expression and pose of one frame of a known identity, starting from (and, as weighted, staying near) `start`.
pub fn fit_frame(model: &HeadModel, cloud: &Cloud, start: &Frame, z_id: &[f32], config: &FitConfig) -> Frame {
    fit_frames(model, &[(cloud, start.clone())], z_id, config, &mut |_, _| ()).remove(0)
}

/// Fits expressions and poses of several frames of a known identity jointly; neighbours in the list are kept alike as weighted. A step
/// on many frames costs half as much per frame as steps on one at a time.
pub fn fit_frames(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    z_id: &[f32],
    config: &FitConfig,
    progress: &mut dyn FnMut(usize, f64),
) -> Vec<Frame> {
    let z_id = Tensor::from_slice(z_id).unsqueeze(0).to_device(model.vs.device());
    let person = tch::no_grad(|| model.person(&z_id, None));
    optimize(model, frames, Some(&person), None, config, progress)
}

/// Observed points of one frame in the model frame of its initial pose.
struct Observed {
    points: Tensor,
    normals: Option<Tensor>,
    outside: Option<Tensor>,
}

fn optimize(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    known: Option<&Person>,
    z_id: Option<&Tensor>,
    config: &FitConfig,
    progress: &mut dyn FnMut(usize, f64),
) -> Vec<Frame> {
    let device = model.vs.device();
    let count = frames.len() as i64;
    let d_ex = model.config.deformation.d_ex as usize;
    let observed: Vec<Observed> =
        frames.iter().map(|(cloud, frame)| observe(cloud, &frame.pose, config.scale, device)).collect();
    let start: Vec<f32> =
        frames.iter().flat_map(|(_, frame)| (0..d_ex).map(|i| frame.z_ex.get(i).copied().unwrap_or(0.0))).collect();
    let start = Tensor::from_slice(&start).reshape([count, -1]).to_device(device);
    let z_ex = start.copy().set_requires_grad(true);
    let zeros = || Tensor::zeros([count, 3], (Kind::Float, device)).set_requires_grad(true);
    let (rotation, translation) = (zeros(), zeros());

    let mut optimizer = AdamW::default();
    let mut add = |name: &str, lr: f64, tensor: &Tensor| {
        let group = Group { name: name.into(), lr, weight_decay: 0.0, max_grad_norm: None };
        optimizer.add_tensors(group, [(name.to_owned(), tensor.shallow_clone())].into());
    };
    add("z_ex", config.rate_codes, &z_ex);
    add("rotation", config.rate_rotation, &rotation);
    add("translation", config.rate_translation, &translation);
    if let Some(z_id) = z_id {
        add("z_id", config.rate_codes, z_id);
    }

    let (mut residual, mut kept) = (vec![0.0; frames.len()], vec![0.0; frames.len()]);
    for step in 0..config.steps {
        let fresh = z_id.map(|z| model.person(z, None).repeat(count));
        let repeated = known.map(|p| p.repeat(count));
        let person = fresh.as_ref().or(repeated.as_ref()).expect("the identity is either fitted or known");
        let turn = pose::matrices(&rotation);
        let to_model = |x: &Tensor| (x - translation.unsqueeze(1)).matmul(&turn);
        let draw = |which: u64, n: usize, pool: &dyn Fn(&Observed) -> Option<Tensor>| -> Option<Tensor> {
            let rows: Option<Vec<Tensor>> = observed
                .iter()
                .enumerate()
                .map(|(f, o)| {
                    let pool = pool(o)?;
                    let stream = ((step as u64) << 24) | ((f as u64) << 2) | which;
                    let picked = init::integers(config.seed, stream, n, pool.size()[0].max(1));
                    (pool.size()[0] > 0).then(|| pool.index_select(0, &Tensor::from_slice(&picked).to_device(device)))
                })
                .collect();
            rows.filter(|_| n > 0).map(|rows| Tensor::stack(&rows, 0))
        };

        // the first `graded` of the drawn points also have their normals compared
        let drawn = draw(0, config.points, &|o| Some(o.points.shallow_clone())).expect("clouds have points");
        let graded = config.normal_points.min(config.points) as i64;
        let normals = draw(0, config.points, &|o| o.normals.as_ref().map(Tensor::shallow_clone)).filter(|_| graded > 0);
        let x = to_model(&drawn);
        let (sdf, normal_loss) = match &normals {
            None => (model.posed_field(person, &z_ex, &x, Far::Learned).sdf, None),
            Some(normals) => {
                let near = x.narrow(1, 0, graded);
                let own = model.posed_field(person, &z_ex, &near, Far::Learned).sdf;
                let slope = super::gradient(&own, &near, true);
                let length = (slope.square().sum_dim_intlist(2, false, None::<Kind>) + 1e-12).sqrt();
                let wanted = normals.narrow(1, 0, graded).matmul(&turn);
                let cosine = (slope * wanted).sum_dim_intlist(2, false, None::<Kind>) / length;
                let rest = x.narrow(1, graded, x.size()[1] - graded);
                let rest = model.posed_field(person, &z_ex, &rest, Far::Learned).sdf;
                (Tensor::cat(&[own, rest], 1), Some(1.0 - cosine))
            }
        };
        let distance = sdf.abs();
        let inlier = distance.less(config.threshold(step)).to_kind(Kind::Float);
        let mut loss = trimmed_mean(&distance, &inlier) * config.surface;
        if let Some(term) = normal_loss {
            loss += trimmed_mean(&term, &inlier.narrow(1, 0, graded)) * config.normals;
        }
        if let Some(outside) = draw(1, config.outside_points, &|o| o.outside.as_ref().map(Tensor::shallow_clone)) {
            let sdf = model.posed_field(person, &z_ex, &to_model(&outside), Far::Learned).sdf;
            loss += (-sdf + 0.01).relu().mean(None::<Kind>) * config.outside;
        }
        let squared = |t: &Tensor| t.square().sum_dim_intlist(1, false, None::<Kind>).mean(None::<Kind>);
        loss += squared(&z_ex) * config.z_ex + (squared(&rotation) + squared(&translation)) * config.smooth_pose;
        if let Some(z_id) = z_id {
            loss += squared(z_id) * config.z_id + model.identity.asymmetry(z_id) * config.symmetry;
        }
        if count > 1 {
            loss += squared(&(z_ex.narrow(0, 1, count - 1) - z_ex.narrow(0, 0, count - 1))) * config.smooth_z_ex;
        } else if z_id.is_none() {
            loss += squared(&(&z_ex - &start)) * config.smooth_z_ex;
        }
        optimizer.zero_grad();
        loss.backward();
        optimizer.step(super::train::halving(step as u64, config.steps as u64));
        progress(step, loss.double_value(&[]));
        if step + 1 == config.steps {
            let per_frame = (&distance * &inlier).sum_dim_intlist(1, false, None::<Kind>)
                / inlier.sum_dim_intlist(1, false, None::<Kind>).clamp_min(1.0);
            residual = to_vec(&per_frame).into_iter().map(f64::from).collect();
            kept = to_vec(&inlier.mean_dim(1, false, None::<Kind>)).into_iter().map(f64::from).collect();
        }
    }

    let codes = to_vec(&z_ex);
    let (turns, shifts) = (to_vec(&rotation), to_vec(&translation));
    let triple = |v: &[f32], i: usize| [0, 1, 2].map(|k| f64::from(v[3 * i + k]));
    frames
        .iter()
        .enumerate()
        .map(|(i, (_, frame))| Frame {
            z_ex: codes[i * d_ex..(i + 1) * d_ex].to_vec(),
            pose: frame.pose.corrected(triple(&turns, i), triple(&shifts, i), config.scale),
            residual: residual[i],
            kept: kept[i],
        })
        .collect()
}

impl Person {
    /// The same person for `count` scans; nothing to do when there are as many already.
    fn repeat(&self, count: i64) -> Person {
        let again = |t: &Tensor| {
            let mut size = t.size();
            size[0] = count;
            t.expand(size, false)
        };
        Person {
            z_id: again(&self.z_id),
            z_app: self.z_app.as_ref().map(again),
            anchors: again(&self.anchors),
            compressed: again(&self.compressed),
        }
    }
}

fn observe(cloud: &Cloud, pose: &Pose, scale: f64, device: tch::Device) -> Observed {
    let tensor = |points: Vec<[f32; 3]>| Tensor::from_slice(points.as_flattened()).reshape([-1, 3]).to_device(device);
    let points = |list: &[[f32; 3]]| tensor(list.iter().map(|p| pose.to_model(*p, scale)).collect());
    Observed {
        points: points(&cloud.points),
        normals: (!cloud.normals.is_empty())
            .then(|| tensor(cloud.normals.iter().map(|n| pose.turn_to_model(*n)).collect())),
        outside: (!cloud.outside.is_empty()).then(|| points(&cloud.outside)),
    }
}

fn trimmed_mean(values: &Tensor, inlier: &Tensor) -> Tensor {
    (values * inlier).sum(None::<Kind>) / inlier.sum(None::<Kind>).clamp_min(1.0)
}

fn to_vec(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).reshape([-1])).expect("a float tensor")
}
