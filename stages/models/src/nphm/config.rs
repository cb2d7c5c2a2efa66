//! Dimensions and presets of the head model: every number that decides a variable's shape or the blending rule.
//! Knows no tensors.

use crate::weights::WeightsError;
use serde::{Deserialize, Serialize};

/// Variable names and input order of the two published generations. Either may be used with any [`Blend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// NPHM: members stacked in one tensor per layer (`ensembled_deep_sdf.lin{i}`), input `[coords | z_glob | z_k]`.
    Nphm,
    /// MonoNPHM: a module per member (`deepSDFensemble.layers.{u}.layers.{2i}`), input `[z_glob | z_k | coords]`.
    MonoNphm,
}

/// What lies between the layers of an SDF or deformation network; both are smooth, as spatial gradients are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `ln(1 + exp(beta x)) / beta`, and `x` itself from 20 / beta on, as in PyTorch. The published networks have beta
    /// 100.
    Softplus(f64),
    /// `(x + sqrt(x^2 + (2 ln 2 / beta)^2)) / 2`: the same value at 0 as Softplus of that beta, and a tenth of its cost
    /// on a CPU, where exponentials cost more than the matrix products around them.
    Squareplus(f64),
}

/// How the outputs of the local members are blended into one field. Distances are in model units (25 cm).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blend {
    /// NPHM, literally: `w_k = exp(-(|x - a_k| + distance_eps)^2 / denominator)`, the global member has the constant
    /// weight `exp(background / denominator)`, and `F = sum w f / (sum w + sum_eps)`. Far from all anchors `F` tends to
    /// 0.
    Gaussian {
        /// Denominator in the exponent; there is no factor 2.
        denominator: f64,
        /// Added to distances before squaring.
        distance_eps: f64,
        /// Numerator of the global member's exponent; negative.
        background: f64,
        /// Added to the sum of weights.
        sum_eps: f64,
    },
    /// The same weights normalised by a softmax, so nothing vanishes far away, over the `neighbors` nearest anchors and
    /// the global member. Members that are not among the nearest of a point are not evaluated there.
    Softmax {
        /// Denominator in the exponent.
        denominator: f64,
        /// Numerator of the global member's exponent; negative.
        background: f64,
        /// Anchors that take part at a point; all of them if there are fewer.
        neighbors: i64,
    },
    /// MonoNPHM: `sigma(x)` = the largest of the eight nearest distances / `blend_std`, `w = exp(-(dist / sigma)^2 /
    /// 2)` over the `neighbors` nearest anchors, and the global member stands at the constant distance
    /// `global_distance`. With fewer than eight neighbours that constant takes part in `sigma`, as in the published
    /// code.
    Adaptive {
        /// Anchors that are evaluated at a point; the published value is 12.
        neighbors: i64,
        /// Divisor of the widest distance; published 3.75.
        blend_std: f64,
        /// Pseudo-distance of the global member; published 0.75.
        global_distance: f64,
        /// Added to the sum of weights; published 1e-8.
        sum_eps: f64,
    },
}

/// The colour branch of MonoNPHM's members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColorConfig {
    /// Width of the colour members.
    pub hidden: i64,
    /// Hidden layers of the colour members.
    pub layers: i64,
    /// Width of what geometry members tell colour members ("communication bottleneck").
    pub bottleneck: i64,
}

/// The identity network: anchors and an ensemble of local signed distance functions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityConfig {
    /// Symmetric anchor pairs; they come first, interleaved (right, left).
    pub pairs: i64,
    /// Anchors on the mid-line; they follow the pairs.
    pub middle: i64,
    /// Width of the global part of a code.
    pub d_glob: i64,
    /// Width of one member's part of a code.
    pub d_loc: i64,
    /// Ambient ("hyper") coordinates beside xyz.
    pub n_hyper: i64,
    /// Width of a member.
    pub hidden: i64,
    /// Hidden layers of a member.
    pub layers: i64,
    /// Linear layer that sees the input again; the layer before it is narrowed to make room.
    pub skip_layer: Option<i64>,
    /// Width of the MLP that predicts anchor offsets from the global code.
    pub pos_hidden: i64,
    /// Between layers.
    pub activation: Activation,
    /// Variable names and input order.
    pub layout: Layout,
    /// Blending rule.
    pub blend: Blend,
    /// Colour branch; only with [`Layout::MonoNphm`].
    pub color: Option<ColorConfig>,
}

impl IdentityConfig {
    /// Number of anchors.
    pub fn anchors(&self) -> i64 {
        2 * self.pairs + self.middle
    }

    /// Members: one per anchor and the global one, which is last.
    pub fn members(&self) -> i64 {
        self.anchors() + 1
    }

    /// Distinct sets of member weights: pairs share one.
    pub fn unique_members(&self) -> i64 {
        self.pairs + self.middle + 1
    }

    /// Length of an identity code: `[z_glob | z_1 | z_1* | .. | mid_1 .. | z_global_member]`.
    pub fn d_id(&self) -> i64 {
        self.d_glob + self.members() * self.d_loc
    }

    /// Width of a member's input.
    pub fn member_input(&self) -> i64 {
        3 + self.n_hyper + self.d_glob + self.d_loc
    }

    /// Which set of weights member `k` uses.
    pub fn unique_of(&self, member: i64) -> i64 {
        if member < 2 * self.pairs { member / 2 } else { member - self.pairs }
    }

    /// Whether member `k` sees mirrored x: the second of each pair does.
    pub fn mirrored(&self, member: i64) -> bool {
        member < 2 * self.pairs && member % 2 == 1
    }

    /// Multiply-adds at a point: of the members that take part there, and of their layers what depends on the point
    /// (what codes add is computed once for a scan). Blending and colour are not counted.
    pub fn multiply_adds(&self) -> i64 {
        let coords = 3 + self.n_hyper;
        let member: i64 = (0..=self.layers)
            .map(|i| {
                let narrowed = |layer: i64| if self.skip_layer == Some(layer) { self.member_input() } else { 0 };
                let from = if i == 0 { 0 } else { self.hidden - narrowed(i) };
                let coords = if i == 0 || self.skip_layer == Some(i) { coords } else { 0 };
                let to = if i == self.layers { 1 } else { self.hidden - narrowed(i + 1) };
                (from + coords) * to
            })
            .sum();
        let part = match self.blend {
            Blend::Gaussian { .. } => self.anchors(),
            Blend::Softmax { neighbors, .. } | Blend::Adaptive { neighbors, .. } => neighbors.min(self.anchors()),
        };
        (part + 1) * member
    }

    fn check(&self) -> Result<(), WeightsError> {
        let place = "head model, identity";
        if self.pairs < 0 || self.middle < 0 || self.layers < 1 || self.hidden < 1 {
            return Err(wrong(
                place,
                "pairs and middle must be at least 0 (both 0: one network for all), layers and hidden at least 1"
                    .into(),
            ));
        }
        if let Some(skip) = self.skip_layer
            && !((1..=self.layers).contains(&skip) && self.hidden > self.member_input())
        {
            let (layers, input, hidden) = (self.layers, self.member_input(), self.hidden);
            return Err(wrong(
                place,
                format!(
                    "skip_layer {skip} must lie in 1..={layers}, and hidden ({hidden}) exceed a member's input ({input})"
                ),
            ));
        }
        if self.color.is_some() && self.layout != Layout::MonoNphm {
            return Err(wrong(place, "a colour branch exists only with layout mono_nphm".into()));
        }
        Ok(())
    }
}

/// Where the deformation network maps from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// NPHM: canonical points to posed points.
    Forward,
    /// MonoNPHM and DiffusionAvatars: posed points to canonical points.
    Backward,
}

/// The expression network: an MLP of point, compressed identity and expression code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeformationConfig {
    /// Length of the identity code.
    pub d_id: i64,
    /// Number of anchors, which the compressor also reads.
    pub anchors: i64,
    /// Length of an expression code.
    pub d_ex: i64,
    /// Length of the compressed identity.
    pub d_compress: i64,
    /// Width.
    pub hidden: i64,
    /// Hidden layers.
    pub layers: i64,
    /// Linear layer that sees the input again, divided by sqrt 2 together with its own input.
    pub skip_layer: i64,
    /// Narrow the layer before the skip so that widths stay equal (NPHM), or append (MonoNPHM).
    pub narrow: bool,
    /// Ambient coordinates put out beside the offset.
    pub n_hyper: i64,
    /// Direction of the offset.
    pub direction: Direction,
    /// Between layers.
    pub activation: Activation,
    /// Standard deviation of the last layer's initial weights; `None` is the default linear initialisation.
    pub last_std: Option<f64>,
}

impl DeformationConfig {
    /// Width of the network's input `[x | compressed | z_ex]`.
    pub fn input(&self) -> i64 {
        3 + self.d_compress + self.d_ex
    }

    /// Multiply-adds at a point, of what depends on the point (what codes add is computed once for a scan).
    pub fn multiply_adds(&self) -> i64 {
        (0..=self.layers)
            .map(|i| {
                let narrowed = |layer: i64| if self.narrow && layer == self.skip_layer { self.input() } else { 0 };
                let from = if i == 0 { 0 } else { self.hidden - narrowed(i) };
                let coords = if i == 0 || i == self.skip_layer { 3 } else { 0 };
                let to = if i == self.layers { 3 + self.n_hyper } else { self.hidden - narrowed(i + 1) };
                (from + coords) * to
            })
            .sum()
    }

    fn check(&self) -> Result<(), WeightsError> {
        let place = "head model, deformation";
        if !(1..=self.layers).contains(&self.skip_layer) {
            return Err(wrong(place, format!("skip_layer {} is not within 1..={}", self.skip_layer, self.layers)));
        }
        if self.narrow && self.hidden <= self.input() {
            let (hidden, input) = (self.hidden, self.input());
            return Err(wrong(
                place,
                format!("a narrowing skip needs hidden ({hidden}) above the input width ({input})"),
            ));
        }
        Ok(())
    }
}

/// The head model: identity and expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadConfig {
    /// Identity network.
    pub identity: IdentityConfig,
    /// Expression network.
    pub deformation: DeformationConfig,
}

impl HeadConfig {
    /// A model that trains in minutes on a CPU, with every mechanism of the published ones: `pairs` + `middle` anchors,
    /// backward deformation, two ambient dimensions. With 4 and 5 it has 0.2 M parameters.
    pub fn mini(pairs: i64, middle: i64) -> Self {
        let identity = IdentityConfig {
            pairs,
            middle,
            d_glob: 16,
            d_loc: 8,
            n_hyper: 2,
            hidden: 64,
            layers: 4,
            skip_layer: Some(2),
            pos_hidden: 64,
            activation: Activation::Squareplus(100.0),
            layout: Layout::Nphm,
            blend: Blend::Softmax { denominator: 0.02, background: -0.2, neighbors: 6 },
            color: None,
        };
        Self::backward(identity, Activation::Squareplus(100.0), 16, 8, 128, 4, 2, Some(1e-3))
    }

    /// NPM, the baseline of NPHM: in place of the ensemble of `like` one network of the whole code, and neither anchors
    /// nor symmetry. It is as wide as makes its multiply-adds at a point come nearest to those of `like`; code lengths
    /// and the deformation network are the same. Unlike the published one (8 layers of 1024, the input again at half)
    /// it has no more layers than a member and no skip.
    pub fn npm(like: &HeadConfig) -> Self {
        let wanted = like.identity.multiply_adds();
        let one = |hidden: i64| IdentityConfig {
            pairs: 0,
            middle: 0,
            d_glob: like.identity.d_id(),
            d_loc: 0,
            hidden,
            skip_layer: None,
            layout: Layout::Nphm,
            color: None,
            // without anchors the Gaussian rule leaves nothing of the only member
            blend: match like.identity.blend.clone() {
                Blend::Gaussian { denominator, background, .. } => {
                    Blend::Softmax { denominator, background, neighbors: 0 }
                }
                other => other,
            },
            ..like.identity.clone()
        };
        let hidden = (1..=4096).min_by_key(|hidden| (one(*hidden).multiply_adds() - wanted).abs()).unwrap_or(1);
        let identity = one(hidden);
        let deformation = DeformationConfig { d_id: identity.d_id(), anchors: 0, ..like.deformation.clone() };
        Self { identity, deformation }
    }

    /// The same with an expression network of this direction: one from posed to canonical points says two ambient
    /// coordinates as well, one from canonical to posed points none, as published.
    pub fn directed(self, direction: Direction) -> Self {
        let n_hyper = match direction {
            Direction::Forward => 0,
            Direction::Backward => 2,
        };
        Self {
            identity: IdentityConfig { n_hyper, ..self.identity },
            deformation: DeformationConfig { n_hyper, direction, ..self.deformation },
        }
    }

    /// The same with other anchors, and without a colour branch: what scans of other anchors and no colours can train.
    pub fn for_scans(self, pairs: i64, middle: i64) -> Self {
        let identity = IdentityConfig { pairs, middle, color: None, ..self.identity };
        let deformation = DeformationConfig { d_id: identity.d_id(), anchors: identity.anchors(), ..self.deformation };
        Self { identity, deformation }
    }

    /// Multiply-adds of the field at a posed point: both networks.
    pub fn multiply_adds(&self) -> i64 {
        self.identity.multiply_adds() + self.deformation.multiply_adds()
    }

    /// NPHM as released (CVPR 2023): 39 anchors, forward deformations, no colour.
    pub fn nphm() -> Self {
        let identity = IdentityConfig {
            pairs: 16,
            middle: 7,
            d_glob: 64,
            d_loc: 32,
            n_hyper: 0,
            hidden: 200,
            layers: 4,
            skip_layer: Some(2),
            pos_hidden: 256,
            activation: Activation::Softplus(100.0),
            layout: Layout::Nphm,
            blend: Blend::Gaussian { denominator: 0.01, distance_eps: 1e-5, background: -0.2, sum_eps: 1e-6 },
            color: None,
        };
        let deformation = DeformationConfig {
            d_id: identity.d_id(),
            anchors: identity.anchors(),
            d_ex: 200,
            d_compress: 32,
            hidden: 512,
            layers: 6,
            skip_layer: 3,
            narrow: true,
            n_hyper: 0,
            direction: Direction::Forward,
            activation: Activation::Softplus(100.0),
            last_std: None,
        };
        Self { identity, deformation }
    }

    /// MonoNPHM as released (CVPR 2024): 65 anchors, backward deformations with two ambient dimensions, colour.
    pub fn mononphm() -> Self {
        Self::backward(Self::mono_identity(), Activation::Softplus(100.0), 100, 16, 400, 6, 3, None)
    }

    /// What DiffusionAvatars' tracking used, as far as its data tell: backward, two ambient dimensions, 200 expression
    /// dimensions and the wider network left commented out in MonoNPHM's configuration. The anchor count is not known;
    /// 65 is assumed.
    pub fn da() -> Self {
        Self::backward(Self::mono_identity(), Activation::Softplus(100.0), 200, 32, 512, 6, 3, None)
    }

    /// Fails with a sentence if the parts do not fit.
    pub fn check(&self) -> Result<(), WeightsError> {
        self.identity.check()?;
        self.deformation.check()?;
        let (id, ex) = (&self.identity, &self.deformation);
        if (ex.d_id, ex.anchors, ex.n_hyper) != (id.d_id(), id.anchors(), id.n_hyper) {
            return Err(wrong(
                "head model",
                format!(
                    "the deformation network expects codes of {}, {} anchors and {} ambient dimensions; the identity network has {}, {} and {}",
                    ex.d_id,
                    ex.anchors,
                    ex.n_hyper,
                    id.d_id(),
                    id.anchors(),
                    id.n_hyper
                ),
            ));
        }
        Ok(())
    }

    fn mono_identity() -> IdentityConfig {
        IdentityConfig {
            pairs: 30,
            middle: 5,
            d_glob: 64,
            d_loc: 32,
            n_hyper: 2,
            hidden: 200,
            layers: 4,
            skip_layer: None,
            pos_hidden: 64,
            activation: Activation::Softplus(100.0),
            layout: Layout::MonoNphm,
            blend: Blend::Adaptive { neighbors: 12, blend_std: 3.75, global_distance: 0.75, sum_eps: 1e-8 },
            color: Some(ColorConfig { hidden: 200, layers: 4, bottleneck: 16 }),
        }
    }

    fn backward(
        identity: IdentityConfig,
        activation: Activation,
        d_ex: i64,
        d_compress: i64,
        hidden: i64,
        layers: i64,
        skip_layer: i64,
        last_std: Option<f64>,
    ) -> Self {
        let deformation = DeformationConfig {
            d_id: identity.d_id(),
            anchors: identity.anchors(),
            d_ex,
            d_compress,
            hidden,
            layers,
            skip_layer,
            narrow: false,
            n_hyper: identity.n_hyper,
            direction: Direction::Backward,
            activation,
            last_std,
        };
        Self { identity, deformation }
    }
}

fn wrong(place: &str, reason: String) -> WeightsError {
    WeightsError::Config {
        place: place.into(),
        reason,
        hint: "start from a preset of HeadConfig, or derive every number from the checkpoint's tensor shapes".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiply_adds_are_those_of_the_layers() {
        // a member of the published NPHM has 120.2 k with its codes (99 inputs instead of 3, twice)
        let nphm = HeadConfig::nphm();
        let member = 3 * 200 + 200 * 101 + (101 + 3) * 200 + 200 * 200 + 200;
        assert_eq!(nphm.identity.multiply_adds(), 40 * member);
        assert_eq!(member + 96 * 200 * 2, 120_200);
        let deformation = 3 * 512 + 512 * 512 + 512 * 277 + (277 + 3) * 512 + 2 * 512 * 512 + 512 * 3;
        assert_eq!(nphm.deformation.multiply_adds(), deformation);
        // of 13 anchors six take part, and the global member
        let mini = HeadConfig::mini(4, 5);
        assert_eq!(mini.identity.multiply_adds(), 7 * (5 * 64 + 64 * 35 + (35 + 5) * 64 + 64 * 64 + 64));
    }

    #[test]
    fn the_published_networks_fit_other_anchors() {
        for config in [HeadConfig::mononphm(), HeadConfig::da()] {
            let (length, layout) = (config.deformation.d_ex, config.identity.layout);
            let config = config.for_scans(4, 5);
            config.check().unwrap();
            assert_eq!((config.identity.anchors(), config.identity.color.is_none()), (13, true));
            assert_eq!((config.deformation.d_ex, config.identity.layout), (length, layout));
        }
        assert_eq!(HeadConfig::mini(16, 7).for_scans(4, 5), HeadConfig::mini(4, 5));
        for config in [HeadConfig::nphm(), HeadConfig::mini(4, 5), HeadConfig::da()] {
            let turned = match config.deformation.direction {
                Direction::Forward => Direction::Backward,
                Direction::Backward => Direction::Forward,
            };
            config.clone().directed(turned).for_scans(4, 5).check().unwrap();
            assert_eq!(config.clone().directed(turned).directed(config.deformation.direction), config);
        }
    }

    #[test]
    fn the_baseline_costs_what_the_ensemble_costs() {
        let mini = HeadConfig::mini(4, 5);
        let npm = HeadConfig::npm(&mini);
        npm.check().unwrap();
        assert_eq!((npm.identity.d_id(), npm.identity.members()), (mini.identity.d_id(), 1));
        let ratio = npm.multiply_adds() as f64 / mini.multiply_adds() as f64;
        assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
        // one network alone has all the weight, also where the ensemble's fades away from anchors
        assert!(matches!(HeadConfig::npm(&HeadConfig::nphm()).identity.blend, Blend::Softmax { .. }));
    }
}
