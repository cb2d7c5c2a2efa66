//! The identity network: anchors predicted from the global code, and an ensemble of local signed distance functions
//! around them (NPHM section 3, MonoNPHM section 3.1). Knows nothing of expressions: a query is a canonical point with
//! its ambient coordinates.

use super::blend;
use super::config::{Blend, IdentityConfig, Layout};
use super::mlp::{Between, Group, Wiring, spread};
use crate::weights::WeightsError;
use tch::{Kind, Tensor, nn};

/// What is known of the field far from all anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// The global member's own output.
    Learned,
    /// The global member says +1 everywhere: outside. The evident intention of NPHM's evaluation mode; for mesh
    /// extraction with released NPHM weights.
    Outside,
    /// NPHM's evaluation mode to the letter: all members say +1 at the last point of each scan, and nowhere else. For
    /// parity tests.
    LastPointOutside,
}

/// What the identity network says at `N` points of `B` scans.
pub struct Sample {
    /// `[B, N]` signed distance in model units (25 cm), positive outside.
    pub sdf: Tensor,
    /// `[B, N, 3]` colour in about [-1, 1], if the model has a colour branch and appearance codes were given.
    pub color: Option<Tensor>,
    /// `[B, N, k + 1]` what each member that takes part said before blending: the nearest anchors', nearest first (with
    /// the Gaussian rule all of them, in their own order), then the global member's.
    pub members: Tensor,
    /// `[B, N]` sum of the un-normalised weights.
    pub weight_sum: Tensor,
}

/// Up to this many evaluations of members that do not count, evaluating them is cheaper than sorting them out.
const DENSE: i64 = 3000;

/// The identity network.
pub struct Identity {
    /// Dimensions.
    pub config: IdentityConfig,
    /// `[K, 3]` mean anchor positions. Not a variable: published checkpoints do not hold them.
    pub mean_anchors: Tensor,
    geometry: Ensemble,
    /// None without anchors.
    pos: Option<[(Tensor, Tensor); 3]>,
    color: Option<Color>,
}

struct Color {
    ensemble: Ensemble,
    bottleneck: [(Tensor, Tensor); 2],
}

/// Weights of the unique members, layer by layer.
enum Ensemble {
    Stacked(Vec<(Tensor, Tensor)>),
    Separate(Vec<Vec<(Tensor, Tensor)>>),
}

impl Identity {
    /// Creates the variables under `path`, filled with zeros. `mean_anchors` is `[K, 3]` in model units, pairs first.
    pub fn new(path: &nn::Path<'_>, config: &IdentityConfig, mean_anchors: &Tensor) -> Result<Self, WeightsError> {
        if mean_anchors.size() != [config.anchors(), 3] {
            return Err(WeightsError::Config {
                place: "mean anchors".into(),
                reason: format!("their shape is {:?}; the model has {} anchors", mean_anchors.size(), config.anchors()),
                hint: "give one xyz row per anchor, symmetric pairs first".into(),
            });
        }
        let unique = config.unique_members();
        let widths = |input: i64, hidden: i64, layers: i64, out: i64, skip: Option<i64>| -> Vec<(i64, i64)> {
            (0..=layers)
                .map(|i| {
                    let from = if i == 0 { input } else { hidden };
                    let to = if i == layers { out } else { hidden };
                    (from, if skip == Some(i + 1) { to - input } else { to })
                })
                .collect()
        };
        let geo = widths(config.member_input(), config.hidden, config.layers, 1, config.skip_layer);
        let geometry = match config.layout {
            Layout::Nphm => {
                let path = path / "ensembled_deep_sdf";
                // a layer behind a narrowed one reads the narrowed activations and the input: again `hidden` columns
                Ensemble::Stacked(
                    geo.iter()
                        .enumerate()
                        .map(|(i, &(from, to))| linear(&(&path / format!("lin{i}")), &[unique], from, to))
                        .collect(),
                )
            }
            Layout::MonoNphm => Ensemble::separate(&(path / "deepSDFensemble"), unique, &geo),
        };
        let pos = (config.anchors() > 0).then(|| {
            let pos = path / "mlp_pos";
            [
                linear(&(&pos / 0), &[], config.d_glob, config.pos_hidden),
                linear(&(&pos / 2), &[], config.pos_hidden, config.pos_hidden),
                linear(&(&pos / 4), &[], config.pos_hidden, 3 * config.anchors()),
            ]
        });
        let color = config.color.as_ref().map(|c| Color {
            ensemble: Ensemble::separate(
                &(path / "aggr_app"),
                unique,
                &widths(config.d_glob + config.d_loc + c.bottleneck, c.hidden, c.layers, 3, None),
            ),
            // spelled like this in the published checkpoints
            bottleneck: [
                linear(&(path / "communcation_bottleneck1"), &[], config.hidden, c.bottleneck),
                linear(&(path / "communcation_bottleneck2"), &[], c.bottleneck, c.bottleneck),
            ],
        });
        Ok(Self { config: config.clone(), mean_anchors: mean_anchors.detach().copy(), geometry, pos, color })
    }

    /// Anchors `[B, K, 3]` of identities `z [B, d_id]`; only the global part of the code counts.
    pub fn anchors(&self, z: &Tensor) -> Tensor {
        let Some(pos) = &self.pos else {
            return z.new_zeros([z.size()[0], 0, 3], (z.kind(), z.device()));
        };
        let mut xs = z.narrow(1, 0, self.config.d_glob);
        for (i, (weight, bias)) in pos.iter().enumerate() {
            xs = xs.linear(weight, Some(bias));
            if i < 2 {
                xs = xs.relu();
            }
        }
        xs.reshape([-1, self.config.anchors(), 3]) + self.mean_anchors.to_kind(z.kind()).to_device(z.device())
    }

    /// The field at queries `q [B, N, 3 + n_hyper]` (canonical xyz, then ambient coordinates) of identities `z [B,
    /// d_id]` with `anchors [B, K, 3]` from [`Identity::anchors`]. Appearance codes `z_app [B, d_id]` are for models
    /// with a colour branch.
    pub fn forward(&self, q: &Tensor, z: &Tensor, z_app: Option<&Tensor>, anchors: &Tensor, far: Far) -> Sample {
        let (scans, per_scan, dims) = q.size3().expect("queries are [B, N, 3 + n_hyper]");
        let (points, k_all) = (scans * per_scan, self.config.anchors());
        let offsets = (q.narrow(2, 0, 3).unsqueeze(2) - anchors.unsqueeze(1)).reshape([points, k_all, 3]);
        let squared = offsets.square().sum_dim_intlist(2, false, None::<Kind>);
        let blend::Weights { nearest, normalized, sum } = blend::weights(&self.config.blend, &squared);
        let k = nearest.size()[1];

        let at = Places { q: q.reshape([points, dims]), offsets, nearest: &nearest, per_scan };
        let color = self.color.as_ref().zip(z_app);
        let dense = points * (k_all - k) <= DENSE;
        let (mut members, colors) = if dense { self.everywhere(&at, z, color) } else { self.nearby(&at, z, color) };
        if far == Far::Outside {
            members = Tensor::cat(&[members.narrow(1, 0, k), members.narrow(1, k, 1).ones_like()], 1);
        }
        if far == Far::LastPointOutside {
            let last =
                Tensor::arange(points, (Kind::Int64, q.device())).remainder(per_scan).eq(per_scan - 1).unsqueeze(1);
            members = members.ones_like().where_self(&last, &members);
        }
        let sdf = (&members * &normalized).sum_dim_intlist(1, false, None::<Kind>);
        let color = colors.map(|all| {
            (all * normalized.unsqueeze(2)).sum_dim_intlist(1, false, None::<Kind>).reshape([scans, per_scan, 3])
        });
        Sample {
            sdf: sdf.reshape([scans, per_scan]),
            color,
            members: members.reshape([scans, per_scan, k + 1]),
            weight_sum: sum.reshape([scans, per_scan]),
        }
    }

    /// All members at all points, then those that take part: more arithmetic, few operations.
    /// `[P, k + 1]` distances and `[P, k + 1, 3]` colours.
    fn everywhere(&self, at: &Places<'_>, z: &Tensor, color: Option<(&Color, &Tensor)>) -> (Tensor, Option<Tensor>) {
        let members = self.config.members();
        let (points, dims) = at.q.size2().expect("points are [P, 3 + n_hyper]");
        let unique: Vec<i64> = (0..members).map(|k| self.config.unique_of(k)).collect();
        let unique = Tensor::from_slice(&unique).to_device(z.device());
        let local = at.offsets.transpose(0, 1) * self.mirror(&at.q).unsqueeze(1);
        let hyper = at.q.narrow(1, 3, dims - 3).expand([members - 1, points, dims - 3], false);
        let coords = Tensor::cat(&[Tensor::cat(&[local, hyper], 2), at.q.unsqueeze(0)], 0);
        let chosen = Tensor::cat(&[at.nearest, &at.nearest.new_full([points, 1], members - 1, at.index_options())], 1);

        let group = self.group(&unique);
        let shares: Vec<Tensor> = group.shares(&self.latents(z)).iter().map(|s| spread(s, at.per_scan)).collect();
        let (sdf, hidden) = group.run(&coords, &shares);
        let sdf = sdf.squeeze_dim(2).transpose(0, 1).gather(1, &chosen, false);
        let colors = color.map(|(color, z_app)| {
            let group = self.color_group(color, &unique);
            let shares: Vec<Tensor> =
                group.shares(&self.latents(z_app)).iter().map(|s| spread(s, at.per_scan)).collect();
            let all = group.run(&color.said(&hidden), &shares).0.transpose(0, 1);
            all.gather(1, &chosen.unsqueeze(2).expand([-1, -1, 3], false), false)
        });
        (sdf, colors)
    }

    /// Every member only where it takes part: the points are sorted by member. Results as from
    /// [`Identity::everywhere`].
    fn nearby(&self, at: &Places<'_>, z: &Tensor, color: Option<(&Color, &Tensor)>) -> (Tensor, Option<Tensor>) {
        let (k_all, scans) = (self.config.anchors(), z.size()[0]);
        let (points, dims) = at.q.size2().expect("points are [P, 3 + n_hyper]");
        let k = at.nearest.size()[1];
        let flat = at.nearest.reshape([-1]);
        let order = flat.argsort_stable(true, 0, false);
        let member = flat.index_select(0, &order);
        let point = order.divide_scalar_mode(k, "floor");
        let counts = Vec::<i64>::try_from(member.bincount(None::<Tensor>, k_all)).expect("counts are integers");
        let offset = at.offsets.reshape([-1, 3]).index_select(0, &(&point * k_all + &member));
        let hyper = at.q.narrow(1, 3, dims - 3).index_select(0, &point);
        let coords = Tensor::cat(&[offset * self.mirror(&at.q).index_select(0, &member), hyper], 1).unsqueeze(0);
        let row = &member * scans + point.divide_scalar_mode(at.per_scan, "floor");

        // latents' shares of all members at once, then laid out like the sorted points
        let every: Vec<i64> = (0..self.config.members()).map(|k| self.config.unique_of(k)).collect();
        let every = Tensor::from_slice(&every).to_device(z.device());
        let shares = |group: &Group, z: &Tensor| -> [Vec<Tensor>; 2] {
            let all = group.shares(&self.latents(z));
            let local = all.iter().map(|s| s.flatten(0, 1).index_select(0, &row).unsqueeze(0)).collect();
            [local, all.iter().map(|s| spread(&s.narrow(0, k_all, 1), at.per_scan)).collect()]
        };
        let range = Tensor::arange(self.config.unique_members(), (Kind::Int64, z.device()));
        let [local, global] = shares(&self.group(&every), z);
        let groups = self.group(&range).split();
        let color = color.map(|(color, z_app)| {
            let [local, global] = shares(&self.color_group(color, &every), z_app);
            (color, self.color_group(color, &range).split(), local, global)
        });

        let (mut sdfs, mut colors, mut start) = (Vec::new(), Vec::new(), 0);
        for (unique, group) in groups.iter().enumerate() {
            let is_global = unique + 1 == groups.len();
            let u = unique as i64;
            let of: std::ops::Range<usize> = if u < self.config.pairs {
                2 * unique..2 * unique + 2
            } else {
                (u + self.config.pairs) as usize..(u + self.config.pairs + 1) as usize
            };
            let count: i64 = if is_global { points } else { counts[of].iter().sum() };
            if count == 0 {
                continue;
            }
            let part = |all: &[Tensor]| -> Vec<Tensor> { all.iter().map(|s| s.narrow(1, start, count)).collect() };
            let (sdf, hidden) = if is_global {
                group.run(&at.q.unsqueeze(0), &global)
            } else {
                group.run(&coords.narrow(1, start, count), &part(&local))
            };
            sdfs.push(sdf.reshape([-1]));
            if let Some((color, groups, local, global)) = &color {
                let said = color.said(&hidden);
                let out =
                    if is_global { groups[unique].run(&said, global) } else { groups[unique].run(&said, &part(local)) };
                colors.push(out.0.squeeze_dim(0));
            }
            start += count;
        }
        // the global member's values stand after all others
        let back = order.argsort_stable(true, 0, false).reshape([points, k]);
        let last = Tensor::arange(points, at.index_options()) + points * k;
        let back = Tensor::cat(&[back, last.unsqueeze(1)], 1).reshape([-1]);
        let sdf = Tensor::cat(&sdfs, 0).index_select(0, &back).reshape([points, k + 1]);
        let colors = color.map(|_| Tensor::cat(&colors, 0).index_select(0, &back).reshape([points, k + 1, 3]));
        (sdf, colors)
    }

    /// Mean over identities and pairs of `|z_k - z_k*|`, the symmetry prior on codes `z [B, d_id]`.
    pub fn asymmetry(&self, z: &Tensor) -> Tensor {
        let c = &self.config;
        if c.pairs == 0 {
            return z.sum(z.kind()) * 0.0;
        }
        let local = z.narrow(1, c.d_glob, 2 * c.pairs * c.d_loc).reshape([-1, c.pairs, 2, c.d_loc]);
        let difference = local.select(2, 0) - local.select(2, 1);
        // the root's gradient is infinite where codes are equal, as they are at the start
        let norm = (difference.square().sum_dim_intlist(2, false, None::<Kind>) + 1e-12).sqrt();
        norm.mean(None::<Kind>)
    }

    /// Members with the given sets of weights, ready to run.
    fn group(&self, unique: &Tensor) -> Group {
        let c = &self.config;
        let wiring = Wiring {
            coords_first: c.layout == Layout::Nphm,
            skip: c.skip_layer,
            between: Between::Smooth(c.activation),
        };
        Group::new(&self.geometry.layers(unique), wiring, 3 + c.n_hyper, c.d_glob + c.d_loc)
    }

    fn color_group(&self, color: &Color, unique: &Tensor) -> Group {
        let c = &self.config;
        let wiring = Wiring { coords_first: false, skip: None, between: Between::Relu };
        let said = color.bottleneck[1].1.size()[0];
        Group::new(&color.ensemble.layers(unique), wiring, said, c.d_glob + c.d_loc)
    }

    /// `[M, B, d_glob + d_loc]` codes of all members.
    fn latents(&self, z: &Tensor) -> Tensor {
        let (c, scans) = (&self.config, z.size()[0]);
        let global = z.narrow(1, 0, c.d_glob).unsqueeze(0).expand([c.members(), scans, c.d_glob], false);
        let local = z.narrow(1, c.d_glob, c.members() * c.d_loc).reshape([scans, c.members(), c.d_loc]);
        Tensor::cat(&[global, local.transpose(0, 1)], 2)
    }

    /// `[K, 3]` signs: mirrored members see -x.
    fn mirror(&self, like: &Tensor) -> Tensor {
        let signs: Vec<f32> = (0..self.config.anchors())
            .flat_map(|k| [if self.config.mirrored(k) { -1.0 } else { 1.0 }, 1.0, 1.0])
            .collect();
        Tensor::from_slice(&signs).reshape([self.config.anchors(), 3]).to_kind(like.kind()).to_device(like.device())
    }
}

impl Ensemble {
    fn separate(path: &nn::Path<'_>, unique: i64, widths: &[(i64, i64)]) -> Self {
        let member = |u: i64| -> Vec<(Tensor, Tensor)> {
            let path = path / "layers" / u / "layers";
            widths.iter().enumerate().map(|(i, &(from, to))| linear(&(&path / (2 * i)), &[], from, to)).collect()
        };
        Self::Separate((0..unique).map(member).collect())
    }

    /// Weights `[G, out, in]` and biases `[G, out]` of the sets `unique [G]`, layer by layer.
    fn layers(&self, unique: &Tensor) -> Vec<(Tensor, Tensor)> {
        match self {
            Self::Stacked(layers) => {
                layers.iter().map(|(w, b)| (w.index_select(0, unique), b.index_select(0, unique))).collect()
            }
            Self::Separate(members) => {
                let stacked = |i: usize, f: fn(&(Tensor, Tensor)) -> &Tensor| {
                    let all: Vec<&Tensor> = members.iter().map(|layers| f(&layers[i])).collect();
                    Tensor::stack(&all, 0).index_select(0, unique)
                };
                (0..members[0].len()).map(|i| (stacked(i, |l| &l.0), stacked(i, |l| &l.1))).collect()
            }
        }
    }
}

impl Color {
    /// What geometry tells colour: `[G, P, bottleneck]` from the last hidden layers `[G, P, hidden]`.
    fn said(&self, hidden: &Tensor) -> Tensor {
        let [(w1, b1), (w2, b2)] = &self.bottleneck;
        hidden.linear(w1, Some(b1)).relu().linear(w2, Some(b2))
    }
}

/// Where the field is evaluated.
struct Places<'a> {
    /// `[P, 3 + n_hyper]`.
    q: Tensor,
    /// `[P, K, 3]` positions relative to the anchors.
    offsets: Tensor,
    /// `[P, k]` anchors that take part.
    nearest: &'a Tensor,
    /// Points of each scan.
    per_scan: i64,
}

impl Places<'_> {
    fn index_options(&self) -> (Kind, tch::Device) {
        (Kind::Int64, self.q.device())
    }
}

/// `weight [.., out, in]` and `bias [.., out]` under `path`.
pub(crate) fn linear(path: &nn::Path<'_>, lead: &[i64], from: i64, to: i64) -> (Tensor, Tensor) {
    (path.zeros("weight", &[lead, &[to, from]].concat()), path.zeros("bias", &[lead, &[to]].concat()))
}

/// Far rule that mesh extraction should use with a blending rule: only NPHM's literal one loses the sign far from the
/// anchors.
pub fn far_for_extraction(blend: &Blend) -> Far {
    match blend {
        Blend::Gaussian { .. } => Far::Outside,
        Blend::Softmax { .. } | Blend::Adaptive { .. } => Far::Learned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use crate::nphm::config::ColorConfig;
    use crate::nphm::{HeadConfig, HeadModel};
    use tch::Device;

    fn model(config: &HeadConfig, anchors: &[f32]) -> HeadModel {
        let mut model = HeadModel::new(config, &Tensor::from_slice(anchors).reshape([-1, 3]), Device::Cpu).unwrap();
        model.seed(5);
        model
    }

    fn set(model: &HeadModel, name: &str, f: impl Fn(&mut Tensor)) {
        let mut variable = model.vs.variables().remove(name).expect(name);
        tch::no_grad(|| f(&mut variable));
    }

    const PAIRED: [f32; 9] = [-0.2, 0.1, 0.1, 0.2, 0.1, 0.1, 0.0, -0.1, 0.3];

    #[test]
    fn equal_codes_of_a_pair_give_a_symmetric_field() {
        let model = model(&HeadConfig::mini(1, 1), &PAIRED);
        let c = &model.config.identity;
        // anchors stay where they are; the middle and the global member say nothing
        set(&model, "id_decoder.mlp_pos.4.weight", |w| _ = w.zero_());
        set(&model, "id_decoder.mlp_pos.4.bias", |b| _ = b.zero_());
        for unique in 1..c.unique_members() {
            set(&model, "id_decoder.ensembled_deep_sdf.lin4.weight", |w| _ = w.get(unique).zero_());
            set(&model, "id_decoder.ensembled_deep_sdf.lin4.bias", |b| _ = b.get(unique).zero_());
        }
        let z = init::normal(1, 2, &[1, c.d_id()]) * 0.3;
        z.narrow(1, c.d_glob + c.d_loc, c.d_loc).copy_(&z.narrow(1, c.d_glob, c.d_loc));
        let q = init::normal(1, 3, &[1, 50, 5]) * 0.3;
        let mirrored = &q * Tensor::from_slice(&[-1f32, 1.0, 1.0, 1.0, 1.0]);
        let anchors = model.identity.anchors(&z);
        let at = |q: &Tensor| model.identity.forward(q, &z, None, &anchors, Far::Learned).sdf;
        let (a, b) = (at(&q), at(&mirrored));
        assert!((&a - &b).abs().max().double_value(&[]) < 1e-6);
        assert!((&a - at(&(&q + 0.01))).abs().max().double_value(&[]) > 1e-4, "the field is constant");
    }

    #[test]
    fn constant_members_are_blended_by_normalized_weights() {
        let mut config = HeadConfig::mini(1, 1);
        for blend in [
            Blend::Softmax { denominator: 0.02, background: -0.2, neighbors: 2 },
            Blend::Gaussian { denominator: 0.01, distance_eps: 1e-5, background: -0.2, sum_eps: 1e-6 },
            Blend::Adaptive { neighbors: 2, blend_std: 3.75, global_distance: 0.75, sum_eps: 1e-8 },
        ] {
            config.identity.blend = blend.clone();
            let model = model(&config, &PAIRED);
            set(&model, "id_decoder.ensembled_deep_sdf.lin4.weight", |w| _ = w.zero_());
            set(&model, "id_decoder.ensembled_deep_sdf.lin4.bias", |b| _ = b.fill_(0.75));
            let z = Tensor::zeros([2, config.identity.d_id()], (Kind::Float, Device::Cpu));
            let q = init::normal(1, 3, &[2, 30, 5]) * 0.3;
            let sample = model.identity.forward(&q, &z, None, &model.identity.anchors(&z), Far::Learned);
            let expected = match blend {
                Blend::Gaussian { sum_eps, .. } => &sample.weight_sum * 0.75 / (&sample.weight_sum + sum_eps),
                _ => sample.weight_sum.full_like(0.75),
            };
            assert!((sample.sdf - expected).abs().max().double_value(&[]) < 1e-5, "{blend:?}");
        }
    }

    #[test]
    fn many_points_at_once_give_what_few_give() {
        // few points are evaluated by all members, many by those that take part
        let mut mono = HeadConfig::mononphm();
        let id = &mut mono.identity;
        (id.pairs, id.middle, id.d_glob, id.d_loc, id.hidden) = (4, 5, 8, 4, 20);
        id.color = Some(ColorConfig { hidden: 20, layers: 2, bottleneck: 4 });
        id.blend = Blend::Adaptive { neighbors: 4, blend_std: 3.75, global_distance: 0.75, sum_eps: 1e-8 };
        (mono.deformation.d_id, mono.deformation.anchors) = (mono.identity.d_id(), 13);
        for config in [HeadConfig::mini(4, 5), mono] {
            let anchors: Vec<f32> = Vec::try_from(init::normal(9, 9, &[39]) * 0.3).unwrap();
            let model = model(&config, &anchors);
            let n = 2 * DENSE / 9;
            let z = init::normal(1, 2, &[2, config.identity.d_id()]) * 0.2;
            let q = init::normal(1, 3, &[2, n, 5]) * 0.3;
            let anchors = model.identity.anchors(&z);
            let at = |q: &Tensor| {
                let sample = model.identity.forward(q, &z, Some(&z), &anchors, Far::Learned);
                Tensor::cat(&[sample.members, sample.color.unwrap_or_else(|| sample.sdf.unsqueeze(2))], 2)
            };
            let few: Vec<Tensor> = (0..n).step_by(50).map(|i| at(&q.narrow(1, i, 50.min(n - i)))).collect();
            assert!((at(&q) - Tensor::cat(&few, 1)).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn members_that_are_left_out_hardly_matter() {
        // the mini preset looks at 6 of its 13 anchors
        let anchors: Vec<f32> = Vec::try_from((init::normal(9, 9, &[39])) * 0.3).unwrap();
        let mut config = HeadConfig::mini(4, 5);
        let z = init::normal(1, 2, &[1, config.identity.d_id()]) * 0.2;
        let q = init::normal(1, 3, &[1, 400, 5]) * 0.3;
        let mut at = |neighbors: i64| {
            config.identity.blend = Blend::Softmax { denominator: 0.02, background: -0.2, neighbors };
            let model = model(&config, &anchors);
            model.identity.forward(&q, &z, None, &model.identity.anchors(&z), Far::Learned).sdf
        };
        let (six, all) = (at(6), at(13));
        assert!((six - all).abs().max().double_value(&[]) < 2e-3);
    }
}
