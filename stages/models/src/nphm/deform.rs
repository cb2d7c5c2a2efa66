//! The expression network: where a point moves under an expression (NPHM section 4, MonoNPHM section 3.2). Knows nothing of distances.

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

    /// Offset `[B, N, 3]` and ambient coordinates `[B, N, n_hyper]` at points `x [B, N, 3]` under expressions `z_ex [B, d_ex]`;
    /// `compressed` comes from [`Deformation::compress`]. Which space `x` lies in is `config.direction`'s affair.
    pub fn forward(&self, x: &Tensor, compressed: &Tensor, z_ex: &Tensor) -> (Tensor, Tensor) {
        let (scans, per_scan, _) = x.size3().expect("points are [B, N, 3]");
        let c = &self.config;
        let latents = Tensor::cat(&[compressed, z_ex], 1).unsqueeze(0);
        let weights: Vec<(Tensor, Tensor)> =
            self.layers.iter().map(|(w, b)| (w.unsqueeze(0), b.unsqueeze(0))).collect();
        let wiring = Wiring { coords_first: true, skip: Some(c.skip_layer), between: Between::Smooth(c.activation) };
        let group = Group::new(&weights, wiring, c.coordinates(), c.d_compress + c.d_ex);
        let shares: Vec<Tensor> = group.shares(&latents).iter().map(|s| spread(s, per_scan)).collect();
        let out = group.run(&self.told(&x.reshape([1, -1, 3])), &shares).0;
        let out = out.reshape([scans, per_scan, 3 + self.config.n_hyper]);
        (out.narrow(2, 0, 3), out.narrow(2, 3, self.config.n_hyper))
    }

    /// Points `[1, N, 3]` as the network is told them, `[1, N, coordinates]`.
    fn told(&self, x: &Tensor) -> Tensor {
        let mut parts = vec![x.shallow_clone()];
        for octave in 0..self.config.frequencies {
            let angle = x * (std::f64::consts::PI * f64::from(1 << octave));
            parts.extend([angle.sin(), angle.cos()]);
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nphm::config::HeadConfig;
    use tch::Device;

    #[test]
    fn a_point_is_told_by_its_coordinates_and_their_sines_and_cosines() {
        let vs = nn::VarStore::new(Device::Cpu);
        let mut config = HeadConfig::mini(1, 1).deformation;
        config.frequencies = 2;
        let network = Deformation::new(&vs.root(), &config);
        let told = network.told(&Tensor::from_slice(&[0.25f64, 0.0, -0.5]).reshape([1, 1, 3]));
        assert_eq!(told.size(), [1, 1, config.coordinates()]);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        #[rustfmt::skip]
        let expected = [
            0.25, 0.0, -0.5,
            half, 0.0, -1.0, half, 1.0, 0.0,
            1.0, 0.0, 0.0, 0.0, 1.0, -1.0,
        ];
        let found: Vec<f64> = told.reshape([-1]).try_into().unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        // the published networks are told the point itself
        config.frequencies = 0;
        let plain = Deformation { config, ..network };
        let x = Tensor::from_slice(&[0.25f32, 0.0, -0.5]).reshape([1, 1, 3]);
        assert_eq!(plain.told(&x), x);
    }
}
