//! Terms of a fit that look at several frames at once: landmarks, which have the same place in all, and motion, which
//! is even. Knows no head model.

use super::{Cloud, Frame, Observed, trimmed_mean};
use crate::nphm::pose::{self, Pose};
use tch::{Kind, Tensor};

/// Places `[L, 3]`, zero where there is none, and `[L]` with 1 where there is one.
pub fn tensors(
    places: &[Option<[f32; 3]>],
    device: tch::Device,
    map: &dyn Fn([f32; 3]) -> [f32; 3],
) -> (Tensor, Tensor) {
    let flat: Vec<f32> = places.iter().flat_map(|p| p.map_or([0.0; 3], map)).collect();
    let there: Vec<f32> = places.iter().map(|p| f32::from(u8::from(p.is_some()))).collect();
    (Tensor::from_slice(&flat).reshape([-1, 3]).to_device(device), Tensor::from_slice(&there).to_device(device))
}

/// Landmarks of all frames.
pub struct Landmarks {
    /// `[F, L, 3]`, in the model frame of each frame's initial pose.
    pub seen: Tensor,
    /// `[F, L]`: 1 for those that were found and, if the person's are known, have a place.
    there: Tensor,
    /// `[L, 3]`, the person's, if they are known.
    places: Option<Tensor>,
}

impl Landmarks {
    /// `places` is none while the person is fitted. None where nothing can be compared.
    pub fn of(frames: &[Observed], places: Option<&[Option<[f32; 3]>]>, device: tch::Device) -> Option<Landmarks> {
        if places.map_or(frames.len() < 2, <[_]>::is_empty) {
            return None;
        }
        let count = frames.iter().filter_map(|o| o.landmarks.as_ref()).map(|(p, _)| p.size()[0]).max()?;
        let known = places.map(|places| tensors(places, device, &|p| p));
        assert!(
            known.as_ref().is_none_or(|(p, _)| p.size()[0] == count),
            "a person's landmarks are those of the clouds"
        );
        let empty =
            || (Tensor::zeros([count, 3], (Kind::Float, device)), Tensor::zeros([count], (Kind::Float, device)));
        let all = frames
            .iter()
            .map(|o| o.landmarks.as_ref().map_or_else(empty, |(p, t)| (p.shallow_clone(), t.shallow_clone())));
        let (seen, there): (Vec<Tensor>, Vec<Tensor>) = all.unzip();
        let mut there = Tensor::stack(&there, 0);
        if let Some((_, known)) = &known {
            there *= known;
        }
        Some(Landmarks { seen: Tensor::stack(&seen, 0), there, places: known.map(|(p, _)| p) })
    }

    /// How many there are, found or not.
    pub fn count(&self) -> i64 {
        self.seen.size()[1]
    }

    /// Mean distance of the picked ones, `canonical [F, P, 3]`, from their places, each at most `limit`.
    pub fn distance(&self, canonical: &Tensor, picked: &Tensor, limit: f64) -> Tensor {
        let there = self.there.index_select(1, picked);
        let place = match &self.places {
            Some(places) => places.index_select(0, picked).unsqueeze(0),
            None => {
                let weight = there.unsqueeze(2);
                let sum = (canonical * &weight).sum_dim_intlist(0, true, None::<Kind>);
                sum / weight.sum_dim_intlist(0, true, None::<Kind>).clamp_min(1.0)
            }
        };
        let squared = (canonical - place).square().sum_dim_intlist(2, false, None::<Kind>);
        trimmed_mean(&(squared + 1e-8).sqrt().clamp_max(limit), &there)
    }
}

/// Poses along the frames, to first order in their corrections.
pub struct Motion {
    /// `[F, 3, 3]`, from the model's frame to the world's.
    turns: Tensor,
    /// `[F - 2, 6]`: second differences of the initial poses: rotation vectors, model units.
    rough: Tensor,
}

impl Motion {
    /// None of fewer than three frames.
    pub fn of(frames: &[(&Cloud, Frame)], scale: f64, device: tch::Device) -> Option<Motion> {
        let poses: Vec<Pose> = frames.iter().map(|(_, frame)| frame.pose).collect();
        let rough: Vec<f32> = poses
            .windows(3)
            .flat_map(|p| {
                let (before, after) = (p[0].turn_to(&p[1]), p[1].turn_to(&p[2]));
                let unit = pose::UNITS_PER_METRE / scale;
                let shift = |i: usize| (p[2].translation[i] - 2.0 * p[1].translation[i] + p[0].translation[i]) * unit;
                [0, 1, 2].map(|i| after[i] - before[i]).into_iter().chain([0, 1, 2].map(shift)).map(|v| v as f32)
            })
            .collect();
        let turns: Vec<f32> = poses.iter().flat_map(|p| p.matrix().into_iter().flatten().map(|v| v as f32)).collect();
        (poses.len() > 2).then(|| Motion {
            turns: Tensor::from_slice(&turns).reshape([-1, 3, 3]).to_device(device),
            rough: Tensor::from_slice(&rough).reshape([-1, 6]).to_device(device),
        })
    }

    /// Mean squared second difference after corrections `[F, 3]` in the model's frame.
    pub fn roughness(&self, rotation: &Tensor, translation: &Tensor) -> Tensor {
        let world = |v: &Tensor| self.turns.matmul(&v.unsqueeze(2)).squeeze_dim(2);
        let change = Tensor::cat(&[world(rotation), world(translation)], 1);
        let inner = change.size()[0] - 2;
        let second = change.narrow(0, 2, inner) - change.narrow(0, 1, inner) * 2.0 + change.narrow(0, 0, inner);
        (&self.rough + second).square().sum_dim_intlist(1, false, None::<Kind>).mean(None::<Kind>)
    }
}
