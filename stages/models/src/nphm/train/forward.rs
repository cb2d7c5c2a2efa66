//! What a forward head model, which says where canonical points move, learns from scans (NPHM, sections 3.2 and 3.3).
//! Its field is canonical: neutral scans show it, and scans with an expression only how their points moved from there.
//! NPHM trains the one first and the other with identities at rest; here both are learned in one step, and nothing of
//! an expression's error reaches the identities. Knows no loop, files or schedules.

use super::{Batch, Far, HeadModel, LossWeights, Losses, anchor_error, gradient, weighted};
use crate::nphm::config::Blend;
use tch::{Kind, Reduction, Tensor};

/// Loss of a batch under the codes picked for it: of the field in its neutral scans, and of where correspondences move
/// in all.
pub(super) fn step(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, batch: &Batch, weights: &LossWeights) -> Losses {
    let mean = |t: Tensor| t.mean(None::<Kind>);
    let none = || Tensor::zeros([], (z_id.kind(), z_id.device()));
    let neutral = batch.neutral.nonzero().squeeze_dim(1);
    let person = model.person(&z_id.index_select(0, &neutral), None);
    let of_neutral = |t: &Tensor| t.index_select(0, &neutral);
    let sample = |x: &Tensor| {
        let q = x.constant_pad_nd([0, model.config.identity.n_hyper]);
        model.canonical_field(&person, &q, Far::Learned)
    };
    let field = |x: &Tensor| sample(x).sdf;
    let slope_at = |x: Tensor| {
        let x = x.detach().copy().set_requires_grad(true);
        let field = field(&x);
        let slope = gradient(&field, &x, true);
        (field, slope)
    };
    let length = |v: &Tensor| (v.square().sum_dim_intlist(2, false, None::<Kind>) + 1e-12).sqrt();
    // no neutral scan, no field
    let [surface, normals, eikonal, around, near, far, space] = if neutral.size()[0] == 0 {
        [(); 7].map(|()| none())
    } else {
        let (surface, slope) = slope_at(of_neutral(&batch.surface));
        let (near, far) = (of_neutral(&batch.near), of_neutral(&batch.far));
        let (near_field, at_far, told) = (field(&near), sample(&far), of_neutral(&batch.far_distance));
        let far_field = at_far.sdf;
        // far from all anchors NPHM's own blending rule leaves next to nothing of any member: no weights make a
        // distance of that
        let says = match model.config.identity.blend {
            Blend::Gaussian { sum_eps, .. } => at_far.weight_sum.greater(sum_eps),
            Blend::Softmax { .. } | Blend::Adaptive { .. } => at_far.weight_sum.ones_like().greater(0.0),
        };
        let hinge = (told.abs() * 0.5 - told.sign() * &far_field).relu() * says;
        let around = match weights.eikonal_around > 0.0 {
            true => mean((length(&slope_at(Tensor::cat(&[near, far], 1)).1) - 1.0).abs()),
            false => none(),
        };
        [
            mean(surface.abs()),
            mean(length(&(&slope - of_neutral(&batch.normals)))),
            mean((length(&slope) - 1.0).abs()),
            around,
            mean((near_field - of_neutral(&batch.near_distance)).abs()),
            mean(hinge),
            mean((far_field.abs() * -10.0).exp()),
        ]
    };
    let moved = Moved::of(model, z_id, z_ex, batch);
    let squared = moved.of_pairs.square().mean_dim([1i64, 2].as_slice(), false, None::<Kind>);
    let at_neutral = (squared * &batch.neutral).sum(None::<Kind>) / batch.neutral.sum(None::<Kind>).clamp_min(1.0);
    weighted([
        ("surface", weights.surface, surface),
        ("normals", weights.normals, normals),
        ("eikonal", weights.eikonal, eikonal),
        ("eikonal_around", weights.eikonal_around, around),
        ("near", weights.near, near),
        ("far", weights.far, far),
        ("space", weights.space, space),
        ("correspondence", weights.correspondence, moved.error(batch)),
        ("anchors", weights.anchors, anchor_error(model, &model.identity.anchors(z_id), batch)),
        ("neutral_zero", weights.neutral_zero, at_neutral),
        ("zero_deformation", weights.zero_deformation, mean(moved.far.square())),
        ("z_id", weights.z_id, mean(z_id.square().sum_dim_intlist(1, false, None::<Kind>))),
        ("z_ex", weights.z_ex, mean(z_ex.square().sum_dim_intlist(1, false, None::<Kind>))),
        ("symmetry", weights.symmetry, model.identity.asymmetry(z_id)),
    ])
}

/// What expressions are learned from.
pub(in crate::nphm) struct Expressions {
    /// Weighted sum.
    pub total: Tensor,
    /// Mean squared error of where points move.
    pub error: Tensor,
}

/// Loss of where the points of scans move under their expressions, identities at rest.
pub(in crate::nphm) fn expressions(
    model: &HeadModel,
    z_id: &Tensor,
    z_ex: &Tensor,
    batch: &Batch,
    weights: &LossWeights,
) -> Expressions {
    let moved = Moved::of(model, z_id, z_ex, batch);
    let error = moved.error(batch);
    let codes = z_ex.square().sum_dim_intlist(1, false, None::<Kind>).mean(None::<Kind>);
    let far = moved.far.square().mean(None::<Kind>);
    let total = &error * weights.correspondence + far * weights.zero_deformation + codes * weights.z_ex;
    Expressions { total, error }
}

/// How far points move under expressions; identities do not learn from it.
struct Moved {
    /// `[B, C, 3]` of correspondences.
    of_pairs: Tensor,
    /// `[B, F, 3]` of points anywhere.
    far: Tensor,
}

impl Moved {
    fn of(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, batch: &Batch) -> Moved {
        let z_id = z_id.detach();
        let compressed = model.deformation.compress(&z_id, &model.identity.anchors(&z_id).detach());
        let pairs = batch.canonical.size()[1];
        let points = Tensor::cat(&[&batch.canonical, &batch.far], 1);
        let moved = model.deformation.forward(&points, &compressed, z_ex).0;
        Moved { of_pairs: moved.narrow(1, 0, pairs), far: moved.narrow(1, pairs, moved.size()[1] - pairs) }
    }

    fn error(&self, batch: &Batch) -> Tensor {
        (&batch.canonical + &self.of_pairs).mse_loss(&batch.posed, Reduction::Mean)
    }
}
