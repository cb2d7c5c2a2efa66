//! The head model: identity and expression composed into one field in posed space, and what is computed from it without
//! gradients (grids for meshing, canonical coordinates of vertices). Knows no meshes and no world frame: all points are
//! in model units (25 cm).

use super::config::{Direction, HeadConfig};
use super::deform::Deformation;
use super::identity::{Far, Identity, Sample, far_for_extraction};
use super::roots;
use crate::init;
use crate::weights::{self, Tensors, WeightsError};
use tch::{Device, Kind, Tensor, nn};

/// Points evaluated at once without gradients: large enough for the matrix products, small enough for the cache.
const CHUNK: usize = 4096;

/// How near a canonical point has to come to the posed one that it is sought for, model units: 2.5 micrometres, which
/// f32 can tell.
const REACHED: f64 = 1e-5;

/// Both networks and their variables.
pub struct HeadModel {
    /// Variables `id_decoder.*` and `ex_decoder.*`, as in MonoNPHM's checkpoints.
    pub vs: nn::VarStore,
    /// Dimensions.
    pub config: HeadConfig,
    /// Identity network.
    pub identity: Identity,
    /// Expression network.
    pub deformation: Deformation,
}

/// Identities and what follows from them alone, computed once and used for many expressions.
pub struct Person {
    /// `[B, d_id]`.
    pub z_id: Tensor,
    /// `[B, d_id]` appearance codes, if the model has colours.
    pub z_app: Option<Tensor>,
    /// `[B, K, 3]`.
    pub anchors: Tensor,
    /// `[B, d_compress]`.
    pub compressed: Tensor,
}

impl HeadModel {
    /// A model filled with zeros; see [`HeadModel::seed`]. `mean_anchors [K, 3]` in model units, pairs first.
    pub fn new(config: &HeadConfig, mean_anchors: &Tensor, device: Device) -> Result<Self, WeightsError> {
        config.check()?;
        let vs = nn::VarStore::new(device);
        let identity = Identity::new(&(vs.root() / "id_decoder"), &config.identity, mean_anchors)?;
        let deformation = Deformation::new(&(vs.root() / "ex_decoder"), &config.deformation);
        Ok(Self { vs, config: config.clone(), identity, deformation })
    }

    /// The published initialisation: uniform in +-1/sqrt(fan in) everywhere (no geometric one); the last deformation
    /// layer as its configuration says. A variable's numbers depend on `seed` and its name only.
    pub fn seed(&mut self, seed: u64) {
        let variables = weights::sorted(&self.vs);
        let last = format!("ex_decoder.defDeepSDF.lin{}.", self.config.deformation.layers);
        tch::no_grad(|| {
            for (name, variable) in &variables {
                let mut variable = variable.shallow_clone();
                let (size, stream) = (variable.size(), init::name_stream(name));
                let weight = &variables[&name.replace("bias", "weight")];
                let bound = 1.0 / (weight.size().last().copied().unwrap_or(1) as f64).sqrt();
                match self.config.deformation.last_std.filter(|_| name.starts_with(&last)) {
                    Some(_) if name.ends_with("bias") => _ = variable.zero_(),
                    Some(std) => variable.copy_(&(init::normal(seed, stream, &size) * std)),
                    None => variable.copy_(&init::uniform(seed, stream, &size, -bound, bound)),
                }
            }
        });
    }

    /// Weights by name, and the mean anchors as `mean_anchors`; detached.
    pub fn tensors(&self) -> Tensors {
        let mut all: Tensors =
            weights::sorted(&self.vs).into_iter().map(|(name, t)| (name, t.detach().contiguous())).collect();
        all.insert("mean_anchors".into(), self.identity.mean_anchors.contiguous());
        all
    }

    /// Takes weights as [`HeadModel::tensors`] gives them; names and shapes must agree. Without `mean_anchors`, which
    /// published checkpoints lack, the present ones stay. `source` names the weights in an error.
    pub fn set_tensors(&mut self, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
        let mut own = weights::sorted(&self.vs);
        let anchors = self.identity.mean_anchors.copy();
        if tensors.contains_key("mean_anchors") {
            own.insert("mean_anchors".into(), anchors.shallow_clone());
        }
        weights::copy_into(&own, tensors, source)?;
        self.identity.mean_anchors = anchors;
        Ok(())
    }

    /// Anchors and compressed codes of identities `z_id [B, d_id]`.
    pub fn person(&self, z_id: &Tensor, z_app: Option<&Tensor>) -> Person {
        let anchors = self.identity.anchors(z_id);
        let compressed = self.deformation.compress(z_id, &anchors);
        Person { z_id: z_id.shallow_clone(), z_app: z_app.map(Tensor::shallow_clone), anchors, compressed }
    }

    /// Canonical queries `[B, N, 3 + n_hyper]` of posed points `x [B, N, 3]`: with a backward model `[x + delta |
    /// omega]`, with a forward one the points that move to `x`, by root finding. A point for which none is found stays
    /// where it came nearest, and nothing is learned from it.
    pub fn query(&self, person: &Person, z_ex: &Tensor, x: &Tensor) -> Tensor {
        self.reached(person, z_ex, x).0
    }

    /// [`HeadModel::query`], and with a forward model for which points `[B, N]` it is right.
    fn reached(&self, person: &Person, z_ex: &Tensor, x: &Tensor) -> (Tensor, Option<Tensor>) {
        match self.config.deformation.direction {
            Direction::Backward => {
                let (delta, omega) = self.deformation.forward(x, &person.compressed, z_ex);
                (Tensor::cat(&[x + delta, omega], 2), None)
            }
            Direction::Forward => {
                let root = self.invert(person, z_ex, x, &roots::Options { converge: REACHED, ..Default::default() });
                let x = root.x.where_self(&root.converged.unsqueeze(2), &root.x.detach());
                (pad(&x, self.config.identity.n_hyper), Some(root.converged))
            }
        }
    }

    /// The field at canonical queries `q [B, N, 3 + n_hyper]`.
    pub fn canonical_field(&self, person: &Person, q: &Tensor, far: Far) -> Sample {
        self.identity.forward(q, &person.z_id, person.z_app.as_ref(), &person.anchors, far)
    }

    /// The field at posed points `x [B, N, 3]` under expressions `z_ex [B, d_ex]`. With a forward model it is 1 unit
    /// where no canonical point was found, which a fit takes for an outlier, and its spatial gradient is right while
    /// that gradient's own leaves out that the deformation's Jacobian depends on the codes (as the published fit
    /// detaches it).
    pub fn posed_field(&self, person: &Person, z_ex: &Tensor, x: &Tensor, far: Far) -> Sample {
        let (q, reached) = self.reached(person, z_ex, x);
        let sample = self.canonical_field(person, &q, far);
        match reached {
            None => sample,
            Some(reached) => Sample { sdf: sample.sdf.masked_fill(&reached.logical_not(), 1.0), ..sample },
        }
    }

    /// Posed points of canonical points `x [B, N, 3]`. With a forward model: `x + delta`. With a backward model by root
    /// finding; the result is differentiable in the codes.
    pub fn pose(&self, person: &Person, z_ex: &Tensor, x: &Tensor) -> roots::Root {
        match self.config.deformation.direction {
            Direction::Forward => {
                let x = x + self.deformation.forward(x, &person.compressed, z_ex).0;
                let (scans, points, _) = x.size3().expect("points are [B, N, 3]");
                let residual = Tensor::zeros([scans, points], (x.kind(), x.device()));
                roots::Root { converged: residual.ge(0.0), residual, x }
            }
            Direction::Backward => self.invert(person, z_ex, x, &roots::Options::default()),
        }
    }

    /// Points whose deformed positions are `target [B, N, 3]`: with a forward model canonical points of observed ones,
    /// with a backward model posed points of canonical ones (anchors for landmarks). Differentiable in the codes by the
    /// implicit function theorem.
    pub fn invert(&self, person: &Person, z_ex: &Tensor, target: &Tensor, options: &roots::Options) -> roots::Root {
        let map = |x: &Tensor| x + self.deformation.forward(x, &person.compressed, z_ex).0;
        roots::solve(&map, target, &target.detach(), options)
    }
}

/// Gradient of a field with respect to the points it was evaluated at. `sdf` must have been computed from `x` with
/// `requires_grad`; with `create_graph` the result can be differentiated again.
///
/// By reverse mode, twice where the result is learned from: a field is one number per point, and three tangents carried
/// forward through the same MLPs cost 1.4 times as much, backward pass included (`docs/head_model.md`).
pub fn gradient(sdf: &Tensor, x: &Tensor, create_graph: bool) -> Tensor {
    Tensor::run_backward(&[sdf.sum(sdf.kind())], &[x], true, create_graph).remove(0)
}

/// Signed distances (model units, positive outside) at `points` (xyz triples in posed space), without gradients. For
/// meshing. `z_id [d_id]` or `[1, d_id]`, `z_ex` likewise. A forward model's points are canonical, and its field does
/// not depend on `z_ex`: mesh it once and push the vertices with [`pushed`].
pub fn field_values(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, points: &[f32]) -> Vec<f32> {
    let far = far_for_extraction(&model.config.identity.blend);
    chunked(model, z_id, z_ex, points, 1, |person, z_ex, x| {
        let sample = match model.config.deformation.direction {
            Direction::Forward => model.canonical_field(person, &pad(x, model.config.identity.n_hyper), far),
            Direction::Backward => model.posed_field(person, z_ex, x, far),
        };
        sample.sdf
    })
}

/// Canonical coordinate of each posed vertex: xyz and two ambient coordinates (0 where the model has fewer; only
/// the first two of more).
pub fn canonical(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, vertices: &[[f32; 3]]) -> Vec<[f32; 5]> {
    let hyper = model.config.identity.n_hyper.min(2);
    let flat = chunked(model, z_id, z_ex, vertices.as_flattened(), 5, |person, z_ex, x| {
        pad(&model.query(person, z_ex, x).narrow(2, 0, 3 + hyper), 2 - hyper)
    });
    flat.as_chunks::<5>().0.to_vec()
}

/// Where canonical vertices lie under an expression, posed space: with a forward model directly, with a backward one by
/// root finding.
pub fn pushed(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, vertices: &[[f32; 3]]) -> Vec<[f32; 3]> {
    let flat = chunked(model, z_id, z_ex, vertices.as_flattened(), 3, |person, z_ex, x| model.pose(person, z_ex, x).x);
    flat.as_chunks::<3>().0.to_vec()
}

fn pad(x: &Tensor, columns: i64) -> Tensor {
    x.constant_pad_nd([0, columns])
}

fn chunked(
    model: &HeadModel,
    z_id: &Tensor,
    z_ex: &Tensor,
    points: &[f32],
    width: usize,
    f: impl Fn(&Person, &Tensor, &Tensor) -> Tensor,
) -> Vec<f32> {
    let _guard = tch::no_grad_guard();
    let device = model.vs.device();
    let kind = model.vs.root().kind();
    let row = |z: &Tensor| z.detach().reshape([1, -1]).to_kind(kind).to_device(device);
    let (person, z_ex) = (model.person(&row(z_id), None), row(z_ex));
    let mut out = Vec::with_capacity(points.len() / 3 * width);
    for chunk in points.chunks(3 * CHUNK) {
        let x = Tensor::from_slice(chunk).reshape([1, -1, 3]).to_kind(kind).to_device(device);
        let values = f(&person, &z_ex, &x).to_kind(Kind::Float).to_device(Device::Cpu).reshape([-1]);
        out.extend(Vec::<f32>::try_from(values).expect("values are floats"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> (HeadModel, Tensor, Tensor) {
        let config = HeadConfig::mini(1, 1);
        let anchors = Tensor::from_slice(&[-0.2f32, 0.1, 0.1, 0.2, 0.1, 0.1, 0.0, -0.1, 0.3]).reshape([3, 3]);
        let mut model = HeadModel::new(&config, &anchors, Device::Cpu).unwrap();
        model.seed(3);
        (model, init::normal(1, 1, &[1, config.identity.d_id()]) * 0.1, init::normal(1, 2, &[1, 16]) * 0.5)
    }

    #[test]
    fn spatial_gradients_agree_with_differences_in_the_posed_frame() {
        let (mut model, z_id, z_ex) = model();
        model.vs.double();
        let (z_id, z_ex) = (z_id.to_kind(Kind::Double), z_ex.to_kind(Kind::Double));
        let person = model.person(&z_id, None);
        let x = (init::normal(1, 3, &[1, 20, 3]) * 0.3).to_kind(Kind::Double).set_requires_grad(true);
        let at = |x: &Tensor| model.posed_field(&person, &z_ex, x, Far::Learned).sdf;
        let slope = gradient(&at(&x), &x, false);
        for axis in 0..3 {
            let step = Tensor::zeros([3], (Kind::Double, Device::Cpu));
            let _ = step.get(axis).fill_(1e-6);
            let numeric = (at(&(&x + &step)) - at(&(&x - &step))) / 2e-6;
            assert!((slope.select(2, axis) - numeric).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn flat_helpers_say_what_the_model_says() {
        let (model, z_id, z_ex) = model();
        let x = init::normal(1, 3, &[1, 5000, 3]) * 0.3;
        let flat: Vec<f32> = Vec::try_from(x.reshape([-1])).unwrap();
        let person = model.person(&z_id, None);
        let expected = model.posed_field(&person, &z_ex, &x, Far::Learned).sdf;
        let values = field_values(&model, &z_id.squeeze(), &z_ex.squeeze(), &flat);
        assert!((Tensor::from_slice(&values) - expected).abs().max().double_value(&[]) < 1e-6);
        let coordinates = canonical(&model, &z_id, &z_ex, flat.as_chunks::<3>().0);
        let expected = model.query(&person, &z_ex, &x);
        assert!(
            (Tensor::from_slice(coordinates.as_flattened()).reshape([1, -1, 5]) - expected)
                .abs()
                .max()
                .double_value(&[])
                < 1e-6
        );
    }

    #[test]
    fn inverting_the_deformation_undoes_it() {
        let (model, z_id, z_ex) = model();
        // a deformation of about a millimetre, as it is at the start of training, made ten times as large
        let mut last = model.vs.variables().remove("ex_decoder.defDeepSDF.lin4.weight").unwrap();
        tch::no_grad(|| _ = last.g_mul_scalar_(10.0));
        let person = model.person(&z_id, None);
        let root =
            model.invert(&person, &z_ex, &person.anchors, &roots::Options { converge: 5e-6, ..Default::default() });
        assert_eq!(root.converged.all().int64_value(&[]), 1);
        let back = model.query(&person, &z_ex, &root.x).narrow(2, 0, 3);
        assert!((back - &person.anchors).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_forward_model_is_asked_at_posed_points_as_a_backward_one_is() {
        let config = HeadConfig::mini(1, 1).directed(Direction::Forward);
        config.check().unwrap();
        let mut model = HeadModel::new(&config, &Tensor::zeros([3, 3], tch::kind::FLOAT_CPU), Device::Cpu).unwrap();
        model.seed(3);
        // a deformation of about a millimetre, as it is at the start of training, made thirty times as large
        let mut last = model.vs.variables().remove("ex_decoder.defDeepSDF.lin4.weight").unwrap();
        tch::no_grad(|| _ = last.g_mul_scalar_(30.0));
        let (z_id, z_ex) = (init::normal(1, 1, &[1, config.identity.d_id()]) * 0.1, init::normal(1, 2, &[1, 16]) * 0.5);
        let person = model.person(&z_id, None);
        let neutral = init::normal(1, 3, &[1, 200, 3]) * 0.3;
        let flat: Vec<f32> = Vec::try_from(neutral.reshape([-1])).unwrap();
        let moved = pushed(&model, &z_id, &z_ex, flat.as_chunks::<3>().0);
        let posed = Tensor::from_slice(moved.as_flattened()).reshape([1, -1, 3]);
        assert!((&posed - &neutral).abs().max().double_value(&[]) > 0.005, "the expression moves points");
        let off = |a: Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let at = model.posed_field(&person, &z_ex, &posed, Far::Learned).sdf;
        assert!(off(at, &model.canonical_field(&person, &neutral, Far::Learned).sdf) < 2e-5);
        let back = canonical(&model, &z_id, &z_ex, &moved);
        let back = Tensor::from_slice(back.as_flattened()).reshape([1, -1, 5]);
        assert!(
            off(back.narrow(2, 0, 3), &neutral) < 2e-5 && back.narrow(2, 3, 2).abs().max().double_value(&[]) == 0.0
        );
        // codes get gradients through the root: a step against it makes the field of observed points smaller
        let surface =
            |z_ex: &Tensor| model.posed_field(&person, z_ex, &posed, Far::Learned).sdf.abs().mean(Kind::Float);
        let free = z_ex.detach().copy().set_requires_grad(true);
        let slope = Tensor::run_backward(&[surface(&free)], &[&free], false, false).remove(0);
        let step = 1e-3 * &slope / slope.square().sum(Kind::Float).sqrt();
        let numeric = (surface(&(&z_ex + &step)) - surface(&(&z_ex - &step))).double_value(&[]) / 2e-3;
        let analytic = slope.square().sum(Kind::Float).sqrt().double_value(&[]);
        assert!(analytic > 0.0 && (numeric / analytic - 1.0).abs() < 0.05, "{numeric} {analytic}");
    }

    #[test]
    fn a_point_that_nothing_moves_to_is_an_outlier() {
        let config = HeadConfig::mini(1, 1).directed(Direction::Forward);
        let mut model = HeadModel::new(&config, &Tensor::zeros([3, 3], tch::kind::FLOAT_CPU), Device::Cpu).unwrap();
        model.seed(3);
        // so strong a deformation folds space
        let mut last = model.vs.variables().remove("ex_decoder.defDeepSDF.lin4.weight").unwrap();
        tch::no_grad(|| _ = last.g_mul_scalar_(3000.0));
        let (z_id, z_ex) = (init::normal(1, 1, &[1, config.identity.d_id()]), init::normal(1, 2, &[1, 16]));
        let person = model.person(&z_id, None);
        let x = (init::normal(1, 3, &[1, 200, 3]) * 0.3).set_requires_grad(true);
        let (_, reached) = model.reached(&person, &z_ex, &x);
        let lost = reached.unwrap().logical_not();
        assert!(lost.any().int64_value(&[]) == 1);
        let sdf = model.posed_field(&person, &z_ex, &x, Far::Learned).sdf;
        assert!(sdf.masked_select(&lost).eq(1.0).all().int64_value(&[]) == 1);
        let slope = gradient(&sdf, &x, false);
        assert!(slope.isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn weights_of_another_configuration_are_refused() {
        let (mut model, ..) = model();
        let other =
            HeadModel::new(&HeadConfig::mini(1, 2), &Tensor::zeros([4, 3], tch::kind::FLOAT_CPU), Device::Cpu).unwrap();
        let before = model.tensors();
        assert!(model.set_tensors(&other.tensors(), "elsewhere").is_err());
        model.set_tensors(&before, "itself").unwrap();
    }
}
