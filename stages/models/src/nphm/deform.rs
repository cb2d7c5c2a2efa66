//! The expression network: where a point moves under an expression (NPHM section 4, MonoNPHM section 3.2). Knows
//! nothing of distances.

use super::config::DeformationConfig;
use super::identity::linear;
use super::mlp::{Between, Group, Wiring, spread};
use tch::{Tensor, nn};

/// The deformation MLP with its identity compressor.
pub struct Deformation {
    /// Dimensions.
    pub config: DeformationConfig,
    compressor: (Tensor, Tensor),
    layers: Vec<(Tensor, Tensor)>,
}

impl Deformation {
    /// Creates the variables `compressor.0.*` and `defDeepSDF.lin{i}.*` under `path`, filled with zeros.
    pub fn new(path: &nn::Path<'_>, config: &DeformationConfig) -> Self {
        let c = config;
        let compressor = linear(&(path / "compressor" / 0), &[], c.d_id + 3 * c.anchors, c.d_compress);
        let path = path / "defDeepSDF";
        let layers = (0..=c.layers)
            .map(|i| {
                let from = match i {
                    0 => c.input(),
                    i if i == c.skip_layer && !c.narrow => c.hidden + c.input(),
                    _ => c.hidden,
                };
                let to = match i {
                    i if i == c.layers => 3 + c.n_hyper,
                    i if i + 1 == c.skip_layer && c.narrow => c.hidden - c.input(),
                    _ => c.hidden,
                };
                linear(&(&path / format!("lin{i}")), &[], from, to)
            })
            .collect();
        Self { config: config.clone(), compressor, layers }
    }

    /// Compressed identity `[B, d_compress]` of codes `z_id [B, d_id]` and their `anchors [B, K, 3]`.
    pub fn compress(&self, z_id: &Tensor, anchors: &Tensor) -> Tensor {
        let (weight, bias) = &self.compressor;
        Tensor::cat(&[z_id.shallow_clone(), anchors.flatten(1, 2)], 1).linear(weight, Some(bias))
    }

    /// Offset `[B, N, 3]` and ambient coordinates `[B, N, n_hyper]` at points `x [B, N, 3]` under expressions `z_ex [B,
    /// d_ex]`; `compressed` comes from [`Deformation::compress`]. Which space `x` lies in is `config.direction`'s
    /// affair.
    pub fn forward(&self, x: &Tensor, compressed: &Tensor, z_ex: &Tensor) -> (Tensor, Tensor) {
        let (scans, per_scan, _) = x.size3().expect("points are [B, N, 3]");
        let c = &self.config;
        let latents = Tensor::cat(&[compressed, z_ex], 1).unsqueeze(0);
        let weights: Vec<(Tensor, Tensor)> =
            self.layers.iter().map(|(w, b)| (w.unsqueeze(0), b.unsqueeze(0))).collect();
        let wiring = Wiring { coords_first: true, skip: Some(c.skip_layer), between: Between::Smooth(c.activation) };
        let group = Group::new(&weights, wiring, 3, c.d_compress + c.d_ex);
        let shares: Vec<Tensor> = group.shares(&latents).iter().map(|s| spread(s, per_scan)).collect();
        let out = group.run(&x.reshape([1, -1, 3]), &shares).0;
        let out = out.reshape([scans, per_scan, 3 + self.config.n_hyper]);
        (out.narrow(2, 0, 3), out.narrow(2, 3, self.config.n_hyper))
    }
}
