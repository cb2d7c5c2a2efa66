//! Principal components of meshes in correspondence, and the linear head model made of two sets of them: identity and
//! expression, as FLAME has them (Li et al., SIGGRAPH Asia 2017), without joints and pose correctives. Knows no point
//! clouds and no files.

use crate::linear::LinearHead;
use crate::nphm::pose::UNITS_PER_METRE;
use crate::weights::{Tensors, WeightsError};
use tch::{Device, Kind, Tensor};

/// Directions of variation, most important first.
pub struct Basis {
    /// `[D, K]`, each a standard deviation long: coefficients of the samples have variance 1.
    pub directions: Tensor,
    /// Share of the samples' squared length that each direction explains.
    pub shares: Vec<f64>,
}

/// Principal components of the rows of `samples [N, D]`, which are taken as deviations from their origin: centre them
/// first, or not if the origin has a meaning. At most `count`, and no more than there are rows that differ. The largest
/// entry of a direction is positive.
pub fn principal(samples: &Tensor, count: usize) -> Basis {
    let x = samples.to_kind(Kind::Double);
    let (n, _) = x.size2().expect("samples are [N, D]");
    // the N x N products have the same components as the D x D covariance, and are smaller by far
    let (values, vectors) = x.matmul(&x.tr()).linalg_eigh("L");
    let values: Vec<f64> = Vec::try_from(&values).expect("eigenvalues are numbers");
    let total: f64 = values.iter().map(|v| v.max(0.0)).sum();
    let kept: Vec<i64> = (0..n).rev().filter(|i| values[*i as usize] > 1e-10 * total).take(count).collect();
    let shares = kept.iter().map(|i| values[*i as usize] / total).collect();
    let chosen = vectors.index_select(1, &Tensor::from_slice(&kept));
    let directions = x.tr().matmul(&chosen) / ((n - 1).max(1) as f64).sqrt();
    let largest = directions.gather(0, &directions.abs().argmax(0, true), false);
    Basis { directions: directions * largest.sign(), shares }
}

/// By how much a jaw turns in one standard deviation of its directions, radians: a mouth opens by about two of them.
pub const JAW: f64 = 0.15;

fn no_joint(joint: usize, joints: i64) -> WeightsError {
    WeightsError::Config {
        place: "linear head".into(),
        reason: format!("its jaw is to be joint {joint}, and it has {joints}"),
        hint: "joints count from 0: the jaw of FLAME is 2; a model whose jaw is no joint has none".into(),
    }
}

/// A head as a template and linear offsets. Vertices are in model units (25 cm).
pub struct PcaHead {
    /// `[V, 3]` the mean neutral head.
    pub template: Tensor,
    /// `[F, 3]` vertices of the triangles, int64.
    pub faces: Tensor,
    /// `[V, 3, S]` offsets of identity, for coefficients of variance 1.
    pub shape: Tensor,
    /// `[V, 3, E]` offsets of expression, likewise; 0 is neutral.
    pub expression: Tensor,
    /// Share of the variance of neutral training heads that each identity component explains.
    pub shape_shares: Vec<f64>,
    /// Share of the squared offsets posed - neutral that each expression component explains.
    pub expression_shares: Vec<f64>,
}

impl PcaHead {
    /// From neutral heads `[P, V, 3]` and offsets posed - neutral `[N, V, 3]` of training scans, with at most so many
    /// components.
    pub fn train(neutral: &Tensor, offsets: &Tensor, faces: &Tensor, shape: usize, expression: usize) -> Self {
        let vertices = neutral.size()[1];
        let flat = |t: &Tensor| t.to_kind(Kind::Double).reshape([-1, 3 * vertices]);
        let mean = flat(neutral).mean_dim(0, true, None::<Kind>);
        let identities = principal(&(flat(neutral) - &mean), shape);
        let expressions = principal(&flat(offsets), expression);
        let single = |basis: &Basis| basis.directions.reshape([vertices, 3, -1]).to_kind(Kind::Float);
        Self {
            template: mean.reshape([vertices, 3]).to_kind(Kind::Float),
            faces: faces.to_kind(Kind::Int64),
            shape: single(&identities),
            expression: single(&expressions),
            shape_shares: identities.shares,
            expression_shares: expressions.shares,
        }
    }

    /// By FLAME's names: `v_template [V, 3]`, `f [F, 3]`, `shapedirs [V, 3, S + E]` (identity first), and how many
    /// components are of which kind, as the lengths of `shape_shares` and `expression_shares`.
    pub fn tensors(&self) -> Tensors {
        [
            ("v_template", self.template.shallow_clone()),
            ("f", self.faces.to_kind(Kind::Int64)),
            ("shapedirs", Tensor::cat(&[&self.shape, &self.expression], 2).contiguous()),
            ("shape_shares", Tensor::from_slice(&self.shape_shares).to_kind(Kind::Float)),
            ("expression_shares", Tensor::from_slice(&self.expression_shares).to_kind(Kind::Float)),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into()
    }

    /// The same head as a model of FLAME's kind, in metres and double precision: one joint, in the middle of all
    /// vertices, which each of them follows, and no corrections for poses.
    pub fn linear(&self) -> LinearHead {
        let metres = |t: &Tensor| t.to_kind(Kind::Double) / UNITS_PER_METRE;
        let vertices = self.template.size()[0];
        let full = |shape: [i64; 2], value: f64| Tensor::full(shape, value, (Kind::Double, Device::Cpu));
        let faces: Vec<i64> = self.faces.reshape([-1]).try_into().expect("an integer tensor");
        LinearHead {
            template: metres(&self.template),
            shapes: metres(&self.shape),
            expressions: metres(&self.expression),
            pose_corrections: Tensor::zeros([vertices, 3, 0], (Kind::Double, Device::Cpu)),
            joint_regressor: full([1, vertices], 1.0 / vertices as f64),
            parents: vec![None],
            skinning: full([vertices, 1], 1.0),
            faces: faces.as_chunks().0.iter().map(|face: &[i64; 3]| face.map(|v| v as u32)).collect(),
        }
    }

    /// A model of FLAME's kind as a head without joints, for fits that take linear offsets alone: its first `shapes`
    /// and `expressions` directions. A jaw that is a joint becomes three directions of the expression, before the
    /// others: what the head's points move, corrections included, when it turns by [`JAW`] about each of its axes. All
    /// other joints stay at rest. Shares are those of the directions' own squared lengths.
    ///
    /// # Errors
    /// If the model has no such joint.
    pub fn of_linear(
        head: &LinearHead,
        [shapes, expressions]: [usize; 2],
        jaw: Option<usize>,
    ) -> Result<Self, WeightsError> {
        let joints = head.joint_count();
        let none = || Tensor::zeros([1, 0], (Kind::Double, Device::Cpu));
        let head = head.to(Kind::Double, Device::Cpu);
        let posed = |turn: &[f64; 3]| -> Result<Tensor, WeightsError> {
            let pose = Tensor::zeros([1, joints, 3], (Kind::Double, Device::Cpu));
            if let Some(jaw) = jaw {
                pose.f_select(1, jaw as i64)
                    .map_err(|_| no_joint(jaw, joints))?
                    .copy_(&Tensor::from_slice(turn).unsqueeze(0));
            }
            Ok(head.pose(&none(), &none(), &pose)?.vertices.squeeze_dim(0) * UNITS_PER_METRE)
        };
        let template = posed(&[0.0; 3])?;
        let first = |directions: &Tensor, count: usize| {
            directions.narrow(2, 0, directions.size()[2].min(count as i64)) * UNITS_PER_METRE
        };
        let mut all: Vec<Tensor> = Vec::new();
        for axis in (0..3).filter(|_| jaw.is_some()) {
            let mut turn = [0.0; 3];
            turn[axis] = JAW;
            all.push((posed(&turn)? - &template).unsqueeze(2));
        }
        all.push(first(&head.expressions, expressions));
        let (shape, expression) = (first(&head.shapes, shapes), Tensor::cat(&all, 2));
        let shares = |directions: &Tensor| -> Vec<f64> {
            let lengths = directions.square().sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Double);
            let lengths = &lengths / lengths.sum(Kind::Double).clamp_min(f64::MIN_POSITIVE);
            Vec::try_from(lengths).expect("numbers")
        };
        let faces: Vec<i64> = head.faces.iter().flatten().map(|&vertex| i64::from(vertex)).collect();
        Ok(Self {
            faces: Tensor::from_slice(&faces).reshape([-1, 3]),
            shape_shares: shares(&shape),
            expression_shares: shares(&expression),
            template: template.to_kind(Kind::Float),
            shape: shape.to_kind(Kind::Float),
            expression: expression.to_kind(Kind::Float),
        })
    }

    /// Takes what [`PcaHead::tensors`] gave. `source` names it in an error.
    ///
    /// # Errors
    /// If a tensor is missing, the shapes do not agree, or a triangle has a vertex that does not exist.
    pub fn from_tensors(tensors: &Tensors, source: &str) -> Result<Self, WeightsError> {
        let wrong = |reason: String| WeightsError::Config {
            place: source.into(),
            reason,
            hint: "a linear head is what train_pca_head puts out".into(),
        };
        let get = |name: &str| {
            let tensor = tensors.get(name).ok_or_else(|| wrong(format!("there is no `{name}`")));
            tensor.map(|t| t.to_device(Device::Cpu))
        };
        let [template, faces, all] = [get("v_template")?, get("f")?.to_kind(Kind::Int64), get("shapedirs")?];
        let shares = |name: &str| -> Result<Vec<f64>, WeightsError> {
            let values = Vec::try_from(get(name)?.to_kind(Kind::Double));
            values.map_err(|_| wrong(format!("`{name}` is not a list of numbers")))
        };
        let (shape_shares, expression_shares) = (shares("shape_shares")?, shares("expression_shares")?);
        let vertices = template.size().first().copied().unwrap_or(0);
        let (s, e) = (shape_shares.len() as i64, expression_shares.len() as i64);
        let sizes = [template.size(), all.size(), faces.size()];
        if sizes[0] != [vertices, 3] || sizes[1] != [vertices, 3, s + e] || sizes[2].len() != 2 || sizes[2][1] != 3 {
            return Err(wrong(format!(
                "v_template, shapedirs and f are {:?}, {:?} and {:?}; expected [V, 3], [V, 3, {s} + {e}] and [F, 3]",
                sizes[0], sizes[1], sizes[2]
            )));
        }
        if faces.numel() > 0 && !(faces.min().int64_value(&[]) >= 0 && faces.max().int64_value(&[]) < vertices) {
            return Err(wrong(format!("`f` names a vertex beyond the {vertices} there are")));
        }
        let part = |from: i64, count: i64| all.narrow(2, from, count).contiguous();
        Ok(Self { template, faces, shape: part(0, s), expression: part(s, e), shape_shares, expression_shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    #[test]
    fn components_of_two_directions_are_those_directions() {
        let along = init::normal(3, 1, &[1, 30]);
        let along = &along / along.norm();
        let other = init::normal(3, 2, &[1, 30]);
        let other = &other - (&other * &along).sum(Kind::Float) * &along;
        let other = &other / other.norm();
        let [a, b] = [(1, 4.0), (2, 1.0)].map(|(stream, std): (u64, f64)| init::normal(4, stream, &[500, 1]) * std);
        let basis = principal(&(&a * &along + &b * &other), 5);
        assert_eq!(basis.shares.len(), 2, "{:?}", basis.shares);
        assert!((basis.shares[0] - 16.0 / 17.0).abs() < 0.01 && (basis.shares[0] + basis.shares[1] - 1.0).abs() < 1e-9);
        let first = basis.directions.select(1, 0).to_kind(Kind::Float);
        assert!((first.norm().double_value(&[]) - 4.0).abs() < 0.3, "a direction is a standard deviation long");
        assert!((first.dot(&along.reshape([-1])).abs() / first.norm()).double_value(&[]) > 0.999);
    }

    #[test]
    fn with_all_components_training_heads_come_back() {
        let neutral = init::normal(1, 1, &[4, 20, 3]);
        let offsets = init::normal(1, 2, &[3, 20, 3]);
        let faces = Tensor::from_slice(&[0i64, 1, 2]).reshape([1, 3]);
        let head = PcaHead::train(&neutral, &offsets, &faces, 10, 10);
        // four heads differ from their mean in three directions
        assert_eq!((head.shape_shares.len(), head.expression_shares.len()), (3, 3));
        let wanted = neutral.get(2) + offsets.get(1);
        let basis = Tensor::cat(&[&head.shape, &head.expression], 2).reshape([60, 6]).to_kind(Kind::Double);
        let offset = (&wanted - &head.template).reshape([60, 1]).to_kind(Kind::Double);
        let solved = Tensor::linalg_solve(&basis.tr().matmul(&basis), &basis.tr().matmul(&offset), true);
        let back = &head.template + basis.matmul(&solved).reshape([20, 3]);
        assert!((back - wanted).abs().max().double_value(&[]) < 1e-4);
        let again = PcaHead::from_tensors(&head.tensors(), "itself").unwrap();
        assert_eq!((again.shape, again.expression, again.faces), (head.shape, head.expression, head.faces));
    }

    #[test]
    fn a_jaw_that_is_a_joint_becomes_directions_of_the_expression() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/linear.npz");
        let linear = crate::linear::files::read(&path, Some(5)).unwrap();
        let head = PcaHead::of_linear(&linear, [3, 2], Some(2)).unwrap();
        assert_eq!((head.shape.size()[2], head.expression.size()[2]), (3, 5));
        assert!((head.expression_shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        // half a standard deviation of the first is nearly half its turn
        let pose = Tensor::zeros([1, linear.joint_count(), 3], (Kind::Double, Device::Cpu));
        let _ = pose.select(1, 2).select(1, 0).fill_(JAW / 2.0);
        let none = Tensor::zeros([1, 0], (Kind::Double, Device::Cpu));
        let turned = linear.pose(&none, &none, &pose).unwrap().vertices.squeeze_dim(0) * UNITS_PER_METRE;
        let along = &head.template + head.expression.select(2, 0) * 0.5;
        let moved = head.expression.select(2, 0).abs().max().double_value(&[]);
        let off = (turned.to_kind(Kind::Float) - along).abs().max().double_value(&[]);
        assert!(moved > 0.0 && off < 0.1 * moved, "{off} of {moved}");
        let error = PcaHead::of_linear(&linear, [3, 2], Some(9)).err().expect("there is none").to_string();
        assert!(error.contains("joint 9, and it has 4"), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let mut tensors = PcaHead::train(
            &init::normal(1, 1, &[4, 20, 3]),
            &init::normal(1, 2, &[3, 20, 3]),
            &Tensor::from_slice(&[0i64, 1, 2]).reshape([1, 3]),
            2,
            2,
        )
        .tensors();
        tensors.insert("f".into(), Tensor::from_slice(&[0i64, 1, 20]).reshape([1, 3]));
        let said = PcaHead::from_tensors(&tensors, "x.safetensors").err().unwrap().to_string();
        assert!(said.contains("x.safetensors: `f` names a vertex"), "{said}");
        tensors.remove("v_template");
        let said = PcaHead::from_tensors(&tensors, "x.safetensors").err().unwrap().to_string();
        assert!(said.contains("no `v_template`") && said.contains("hint:"), "{said}");
    }

    #[test]
    fn as_a_model_of_flames_kind_it_is_the_same_head_in_metres_and_survives_its_file() {
        let random = |stream: u64, shape: &[i64]| init::normal(9, stream, shape);
        let faces = Tensor::from_slice(&[0i64, 1, 2, 2, 1, 3]).reshape([2, 3]);
        let head = PcaHead::train(&random(1, &[4, 7, 3]), &random(2, &[5, 7, 3]), &faces, 9, 2);
        let dir = std::env::temp_dir().join(format!("effigy-linear-{}.npz", std::process::id()));
        std::fs::write(&dir, crate::linear::files::pack(&head.linear())).unwrap();
        let read = crate::linear::files::read(&dir, None).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(read.widths(), [3, 2]);
        let (shape, expression) = (random(3, &[2, 3]), random(4, &[2, 2]));
        let moved = |directions: &Tensor, by: &Tensor| Tensor::einsum("vkc,bc->bvk", &[directions, by], None::<i64>);
        let wanted = (&head.template + moved(&head.shape, &shape) + moved(&head.expression, &expression)) / 4.0;
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        let rest = Tensor::zeros([2, 1, 3], (Kind::Double, Device::Cpu));
        let posed = read.pose(&double(&shape), &double(&expression), &rest).unwrap();
        assert!((posed.vertices.to_kind(Kind::Float) - &wanted).abs().max().double_value(&[]) < 1e-5);
        // and comes back as what it was
        let again = PcaHead::of_linear(&read, [9, 9], None).unwrap();
        let near = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
        assert!(
            near(&again.template, &head.template)
                && near(&again.shape, &head.shape)
                && near(&again.expression, &head.expression)
        );
        assert_eq!((again.faces.size(), again.shape_shares.len()), (head.faces.size(), 3));
        assert!((posed.joints - double(&wanted).mean_dim(1, true, None::<Kind>)).abs().max().double_value(&[]) < 1e-5);
    }
}
