//! Tracking: codes and rigid poses that explain point clouds of one person (NPHM's point-cloud fitting with a pose per
//! frame; with a backward model no roots are sought, with a forward one as published). Knows no cameras, images or
//! files. Clouds are in world metres; `x_world = R (s x_model / 4) + t`.

mod terms;

use super::field::{HeadModel, Person, canonical};
use super::identity::Far;
use super::pose::{self, Pose};
use crate::adamw::{AdamW, Group, cosine};
use crate::init;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use terms::{Landmarks, Motion, tensors};

/// What was observed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// Surface points, world metres.
    pub points: Vec<[f32; 3]>,
    /// Unit outward normals of `points`; empty if unknown.
    pub normals: Vec<[f32; 3]>,
    /// Whether each of `points` may be of something that covers the head, such as hair, so that the surface lies at it
    /// or under it; empty if none may.
    pub covering: Vec<bool>,
    /// Points known to lie outside, such as points between a camera and what it saw; may be empty.
    pub outside: Vec<[f32; 3]>,
    /// Landmarks, each under its own number in every cloud, world metres; `None` where one was not found. Empty if
    /// there are none.
    pub landmarks: Vec<Option<[f32; 3]>>,
    /// Points of the skin, world metres, and the canonical place of each, model units; may be empty.
    pub skin: Vec<([f32; 3], [f32; 3])>,
}

/// A person who was fitted before.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Identity code.
    pub z_id: &'a [f32],
    /// Canonical places of the landmarks, model units; empty if unknown.
    pub landmarks: &'a [Option<[f32; 3]>],
}

/// The state of one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Expression code.
    pub z_ex: Vec<f32>,
    /// Head pose.
    pub pose: Pose,
    /// Mean |F| (model units, 25 cm) over the points that the last trimming threshold kept, without covering ones; 0
    /// before fitting.
    pub residual: f64,
    /// Share of these points that it kept; 0 before fitting.
    pub kept: f64,
}

/// What fitting several frames of one person gives.
#[derive(Clone, Debug)]
pub struct PersonFit {
    /// Identity code.
    pub z_id: Vec<f32>,
    /// A state per frame, in the order given.
    pub frames: Vec<Frame>,
    /// Where landmarks lie in the canonical frame of this person: the median over the frames in which they were found,
    /// model units.
    pub landmarks: Vec<Option<[f32; 3]>>,
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
    /// Landmarks drawn at each step, the same ones in every frame.
    pub landmark_points: usize,
    /// Points of the skin drawn from every cloud at each step.
    pub skin_points: usize,
    /// `s`: size of this head relative to the model's.
    pub scale: f64,
    /// Points with a larger |F| than this count as outliers: `[from share of steps, threshold]`, ascending.
    pub trim: Vec<[f64; 2]>,
    /// Weight of mean |F|.
    pub surface: f64,
    /// How much a covering point counts, beside 1 of another, while it lies outside the surface; inside it counts as
    /// any does, since nothing that was seen is under the skin. So the surface goes to the innermost of them. 1 makes
    /// them points like the others.
    pub covering: f64,
    /// Weight of 1 - cos between observed and modelled normals.
    pub normals: f64,
    /// Weight of relu(0.01 - F) at outside points.
    pub outside: f64,
    /// Weight of the mean distance, in the canonical frame, between where a landmark is and its place in this person
    /// (all that move with the skin have one), or, while the person is fitted, its mean place over the frames. It is
    /// what tells lips and lids apart, and how skin slides along a surface that stays the same.
    pub landmarks: f64,
    /// Landmarks further away count no more than this: a landmark that was found elsewhere.
    pub landmark_limit: f64,
    /// Weight of the mean distance, in the canonical frame, between where a point of the skin is and its place.
    pub skin: f64,
    /// Points of the skin further away count no more than this.
    pub skin_limit: f64,
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
    /// Weight of squared second differences of the pose (radians, model units) along the frames: they are moments of
    /// one motion, equally far apart.
    pub smooth_motion: f64,
    /// So many frames at the beginning stay as they are: the end of what was fitted before, which the others continue
    /// smoothly.
    pub held: usize,
    /// Learning rate of codes; half a cosine takes all rates to a fiftieth.
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
            landmark_points: 120,
            skin_points: 200,
            scale: 1.0,
            trim: vec![[0.0, 0.1], [0.25, 0.05], [0.5, 0.02]],
            surface: 2.0,
            covering: 0.1,
            normals: 0.1,
            outside: 0.5,
            landmarks: 0.5,
            landmark_limit: 0.03,
            skin: 5.0,
            skin_limit: 0.04,
            z_id: 0.02,
            symmetry: 0.005,
            z_ex: 0.01,
            smooth_z_ex: 1e-3,
            smooth_pose: 0.0,
            smooth_motion: 0.0,
            held: 0,
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
        let trim = vec![[0.0, 0.05], [0.4, 0.02]];
        Self { steps: 50, points: 400, trim, z_ex: 0.05, smooth_z_ex: 0.01, ..Self::default() }
    }

    /// Trimming threshold at a step.
    fn threshold(&self, step: usize) -> f64 {
        let share = step as f64 / self.steps.max(1) as f64;
        self.trim.iter().rev().find(|[from, _]| share >= *from).map_or(f64::INFINITY, |[_, threshold]| *threshold)
    }
}

/// Fits one identity code, and an expression code and a pose for every frame, jointly. `frames` pairs clouds with
/// initial states (an empty `z_ex` is the neutral 0). `progress` is told each finished step and its loss.
pub fn fit_identity(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    config: &FitConfig,
    progress: &mut dyn FnMut(usize, f64),
) -> PersonFit {
    let z_id =
        Tensor::zeros([1, model.config.identity.d_id()], (Kind::Float, model.vs.device())).set_requires_grad(true);
    let states = optimize(model, frames, None, Some(&z_id), config, progress);
    let z_id = to_vec(&z_id);
    let landmarks = places(model, frames, &states, &z_id, config.scale);
    PersonFit { z_id, frames: states, landmarks }
}

/// Fits expression and pose of one frame of a known person, starting from (and, as weighted, staying near) `start`.
pub fn fit_frame(model: &HeadModel, cloud: &Cloud, start: &Frame, person: Known<'_>, config: &FitConfig) -> Frame {
    fit_frames(model, &[(cloud, start.clone())], person, config, &mut |_, _| ()).remove(0)
}

/// Fits expressions and poses of several frames of a known person jointly; neighbours in the list are kept alike as
/// weighted. A step on many frames costs half as much per frame as steps on one at a time.
pub fn fit_frames(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    person: Known<'_>,
    config: &FitConfig,
    progress: &mut dyn FnMut(usize, f64),
) -> Vec<Frame> {
    let z_id = Tensor::from_slice(person.z_id).unsqueeze(0).to_device(model.vs.device());
    let known = (tch::no_grad(|| model.person(&z_id, None)), person.landmarks);
    optimize(model, frames, Some(&known), None, config, progress)
}

/// Canonical places of landmarks of a person who was fitted: medians over the frames, coordinate by coordinate.
fn places(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    states: &[Frame],
    z_id: &[f32],
    scale: f64,
) -> Vec<Option<[f32; 3]>> {
    let count = frames.iter().map(|(cloud, _)| cloud.landmarks.len()).max().unwrap_or(0);
    let mut found: Vec<Vec<[f32; 3]>> = vec![Vec::new(); count];
    let z_id = Tensor::from_slice(z_id);
    for ((cloud, _), state) in frames.iter().zip(states) {
        let (numbers, seen): (Vec<usize>, Vec<[f32; 3]>) = cloud
            .landmarks
            .iter()
            .enumerate()
            .filter_map(|(i, p)| p.map(|p| (i, state.pose.to_model(p, scale))))
            .unzip();
        for (i, place) in numbers.into_iter().zip(canonical(model, &z_id, &Tensor::from_slice(&state.z_ex), &seen)) {
            found[i].push([place[0], place[1], place[2]]);
        }
    }
    let median = |list: &[[f32; 3]], axis: usize| {
        let mut values: Vec<f32> = list.iter().map(|p| p[axis]).collect();
        values.sort_by(f32::total_cmp);
        f32::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
    };
    found.iter().map(|list| (!list.is_empty()).then(|| [0, 1, 2].map(|axis| median(list, axis)))).collect()
}

/// Observed points of one frame in the model frame of its initial pose.
struct Observed {
    points: Tensor,
    normals: Option<Tensor>,
    /// 0 for points that may cover the head, 1 for others.
    bare: Tensor,
    outside: Option<Tensor>,
    /// `[L, 3]`, and `[L]` with 1 for those that were found.
    landmarks: Option<(Tensor, Tensor)>,
    /// `[S, 6]`: where points of the skin are, and their canonical places.
    skin: Option<Tensor>,
}

fn optimize(
    model: &HeadModel,
    frames: &[(&Cloud, Frame)],
    known: Option<&(Person, &[Option<[f32; 3]>])>,
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

    let marks = Landmarks::of(&observed, known.map(|(_, places)| *places), device);
    let motion = Motion::of(frames, config.scale, device);
    let (mut residual, mut kept) = (vec![0.0; frames.len()], vec![0.0; frames.len()]);
    for step in 0..config.steps {
        let fresh = z_id.map(|z| model.person(z, None).repeat(count));
        let repeated = known.map(|(p, _)| p.repeat(count));
        let person = fresh.as_ref().or(repeated.as_ref()).expect("the identity is either fitted or known");
        let turn = pose::matrices(&rotation);
        let to_model = |x: &Tensor| (x - translation.unsqueeze(1)).matmul(&turn);
        // of each frame that has such a pool `n` rows, and 1 for it; nothing if none has one
        let draw = |which: u64, n: usize, pool: &dyn Fn(&Observed) -> Option<Tensor>| -> Option<(Tensor, Tensor)> {
            let rows: Vec<Option<Tensor>> = observed
                .iter()
                .enumerate()
                .map(|(f, o)| {
                    let pool = pool(o).filter(|pool| pool.size()[0] > 0)?;
                    let stream = ((step as u64) << 24) | ((f as u64) << 2) | which;
                    let picked = init::integers(config.seed, stream, n, pool.size()[0]);
                    Some(pool.index_select(0, &Tensor::from_slice(&picked).to_device(device)))
                })
                .collect();
            let has: Vec<f32> = rows.iter().map(|rows| f32::from(u8::from(rows.is_some()))).collect();
            let blank = rows.iter().flatten().next().filter(|_| n > 0)?.zeros_like();
            let rows: Vec<&Tensor> = rows.iter().map(|rows| rows.as_ref().unwrap_or(&blank)).collect();
            Some((Tensor::stack(&rows, 0), Tensor::from_slice(&has).to_device(device).unsqueeze(1)))
        };

        // the first `graded` of the drawn points also have their normals compared
        let (drawn, _) = draw(0, config.points, &|o| Some(o.points.shallow_clone())).expect("clouds have points");
        let graded = config.normal_points.min(config.points) as i64;
        let normals = draw(0, config.points, &|o| o.normals.as_ref().map(Tensor::shallow_clone)).filter(|_| graded > 0);
        let x = to_model(&drawn);
        let (sdf, normal_loss) = match &normals {
            None => (model.posed_field(person, &z_ex, &x, Far::Learned).sdf, None),
            Some((normals, told)) => {
                let near = x.narrow(1, 0, graded);
                let own = model.posed_field(person, &z_ex, &near, Far::Learned).sdf;
                let slope = super::gradient(&own, &near, true);
                let length = (slope.square().sum_dim_intlist(2, false, None::<Kind>) + 1e-12).sqrt();
                let wanted = normals.narrow(1, 0, graded).matmul(&turn);
                let cosine = (slope * wanted).sum_dim_intlist(2, false, None::<Kind>) / length;
                let rest = x.narrow(1, graded, x.size()[1] - graded);
                let rest = model.posed_field(person, &z_ex, &rest, Far::Learned).sdf;
                (Tensor::cat(&[own, rest], 1), Some((1.0 - cosine, told)))
            }
        };
        let distance = sdf.abs();
        let inlier = distance.less(config.threshold(step)).to_kind(Kind::Float);
        // what certainly is of the head
        let (bare, _) = draw(0, config.points, &|o| Some(o.bare.shallow_clone())).expect("clouds have points");
        let weight = &inlier * (1.0 - (1.0 - &bare) * sdf.greater(0.0) * (1.0 - config.covering));
        let sure = if config.covering < 1.0 { &inlier * &bare } else { inlier.shallow_clone() };
        let mut loss = trimmed_mean(&distance, &weight) * config.surface;
        if let Some((term, told)) = normal_loss {
            loss += trimmed_mean(&term, &(sure.narrow(1, 0, graded) * told)) * config.normals;
        }
        if let Some((outside, told)) =
            draw(1, config.outside_points, &|o| o.outside.as_ref().map(Tensor::shallow_clone))
        {
            let sdf = model.posed_field(person, &z_ex, &to_model(&outside), Far::Learned).sdf;
            loss += trimmed_mean(&(-&sdf + 0.01).relu(), &told.expand_as(&sdf)) * config.outside;
        }
        if let Some(marks) = marks.as_ref().filter(|_| config.landmarks > 0.0) {
            let stream = ((step as u64) << 24) | 2;
            let picked = init::integers(config.seed, stream, config.landmark_points, marks.count());
            let picked = Tensor::from_slice(&picked).to_device(device);
            let x = to_model(&marks.seen.index_select(1, &picked));
            let canonical = model.query(person, &z_ex, &x).narrow(2, 0, 3);
            loss += marks.distance(&canonical, &picked, config.landmark_limit) * config.landmarks;
        }
        if config.skin > 0.0
            && let Some((skin, told)) = draw(3, config.skin_points, &|o| o.skin.as_ref().map(Tensor::shallow_clone))
        {
            let canonical = model.query(person, &z_ex, &to_model(&skin.narrow(2, 0, 3))).narrow(2, 0, 3);
            let squared = (canonical - skin.narrow(2, 3, 3)).square().sum_dim_intlist(2, false, None::<Kind>);
            let away = (squared + 1e-8).sqrt().clamp_max(config.skin_limit);
            loss += trimmed_mean(&away, &told.expand_as(&away)) * config.skin;
        }
        if config.smooth_motion > 0.0
            && let Some(motion) = &motion
        {
            loss += motion.roughness(&rotation, &translation) * config.smooth_motion;
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
        let held = config.held.min(frames.len()) as i64;
        if held > 0 {
            // Adam leaves what never has a gradient where it is
            for tensor in [&z_ex, &rotation, &translation] {
                let _ = tensor.grad().narrow(0, 0, held).zero_();
            }
        }
        // Adam's steps are as long as the rate says, however small a gradient is: short ones at the end leave less of
        // the draws' noise
        optimizer.step(cosine(step as u64, config.steps as u64, 0, 0.02));
        progress(step, loss.double_value(&[]));
        if step + 1 == config.steps {
            let sum = |t: &Tensor| t.sum_dim_intlist(1, false, None::<Kind>);
            let asked = if config.covering < 1.0 { bare } else { bare.ones_like() };
            let shares = |t: Tensor| to_vec(&t).into_iter().map(f64::from).collect();
            residual = shares(sum(&(&distance * &sure)) / sum(&sure).clamp_min(1.0));
            kept = shares(sum(&sure) / sum(&asked).clamp_min(1.0));
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
    let covers = |i: usize| cloud.covering.get(i).copied().unwrap_or(false);
    let bare: Vec<f32> = (0..cloud.points.len()).map(|i| f32::from(u8::from(!covers(i)))).collect();
    Observed {
        points: points(&cloud.points),
        normals: (!cloud.normals.is_empty())
            .then(|| tensor(cloud.normals.iter().map(|n| pose.turn_to_model(*n)).collect())),
        bare: Tensor::from_slice(&bare).to_device(device),
        outside: (!cloud.outside.is_empty()).then(|| points(&cloud.outside)),
        landmarks: cloud
            .landmarks
            .iter()
            .any(Option::is_some)
            .then(|| tensors(&cloud.landmarks, device, &|p| pose.to_model(p, scale))),
        skin: (!cloud.skin.is_empty()).then(|| {
            let both = cloud.skin.iter().flat_map(|(seen, place)| [pose.to_model(*seen, scale), *place]);
            let flat: Vec<f32> = both.flatten().collect();
            Tensor::from_slice(&flat).reshape([-1, 6]).to_device(device)
        }),
    }
}

fn trimmed_mean(values: &Tensor, inlier: &Tensor) -> Tensor {
    (values * inlier).sum(None::<Kind>) / inlier.sum(None::<Kind>).clamp_min(1.0)
}

fn to_vec(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).reshape([-1])).expect("a float tensor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nphm::config::HeadConfig;

    /// Points around the place where the model has its head, world metres, and which way is out.
    fn ball(radius: f32) -> (Vec<[f32; 3]>, Vec<[f32; 3]>) {
        let direction = |i: i32| {
            let (turn, height) = (i as f32 * 2.4, i as f32 / 100.0 - 1.0);
            let across = (1.0 - height * height).sqrt();
            [across * turn.cos(), height, across * turn.sin()]
        };
        (0..200).map(direction).map(|d| (d.map(|v| v * radius), d)).unzip()
    }

    #[test]
    fn what_one_frame_lacks_the_others_keep() {
        let anchors = Tensor::from_slice(&[-0.2f32, 0.1, 0.1, 0.2, 0.1, 0.1, 0.0, -0.1, 0.3]).reshape([3, 3]);
        let mut model = HeadModel::new(&HeadConfig::mini(1, 1), &anchors, tch::Device::Cpu).unwrap();
        model.seed(3);
        let (points, normals) = ball(0.08);
        let plain = Cloud { points, ..Cloud::default() };
        let rich = Cloud { normals, outside: ball(0.06).0, ..plain.clone() };
        let start = Frame {
            z_ex: Vec::new(),
            pose: Pose { rotation: [0.0; 3], translation: [0.0; 3] },
            residual: 0.0,
            kept: 0.0,
        };
        let z_id = vec![0.0; model.config.identity.d_id() as usize];
        let config = FitConfig { steps: 3, smooth_z_ex: 0.0, smooth_motion: 0.0, ..FitConfig::default() };
        // the first of two frames, beside one that has points alone
        let fitted = |first: &Cloud, config: &FitConfig| {
            let frames = [(first, start.clone()), (&plain, start.clone())];
            fit_frames(&model, &frames, Known { z_id: &z_id, landmarks: &[] }, config, &mut |_, _| ()).remove(0).z_ex
        };
        let bare = fitted(&plain, &config);
        assert_ne!(fitted(&rich, &FitConfig { normals: 0.0, ..config.clone() }), bare, "its outside counts");
        assert_ne!(fitted(&rich, &FitConfig { outside: 0.0, ..config }), bare, "its normals count");
    }
}
