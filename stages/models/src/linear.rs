//! Linear head models of SMPL's kind, as FLAME is one: blend shapes, joints that follow the shape, and linear blend
//! skinning with corrections that depend on the pose (Loper et al. 2015; Li et al. 2017). Values and gradients through
//! `tch`.
//!
//! Lengths are as in the file (metres in FLAME), +y up and +z out of the face there. Knows no files (see [`files`]).

use crate::weights::WeightsError;
use tch::{Device, Kind, Tensor};

pub mod files;

/// A linear model.
#[derive(Debug)]
pub struct LinearHead {
    /// Vertices of the mean head, `[V, 3]`.
    pub template: Tensor,
    /// `[V, 3, S]`: how vertices move with each number of the shape.
    pub shapes: Tensor,
    /// `[V, 3, E]`: with each number of the expression.
    pub expressions: Tensor,
    /// `[V, 3, 9 (J - 1)]`: with each element of the rotation matrices of all joints but the first, less the unit
    /// matrix.
    pub pose_corrections: Tensor,
    /// `[J, V]`: joints as sums of the vertices of the shaped head.
    pub joint_regressor: Tensor,
    /// Parent of each joint, which has a lower number; the first joint has none.
    pub parents: Vec<Option<usize>>,
    /// `[V, J]`: how much a vertex follows a joint; each row sums to 1.
    pub skinning: Tensor,
    /// Triangles, `[F, 3]`.
    pub faces: Vec<[u32; 3]>,
}

/// A head in a pose.
pub struct Posed {
    /// `[B, V, 3]`.
    pub vertices: Tensor,
    /// `[B, J, 3]`.
    pub joints: Tensor,
}

impl LinearHead {
    /// Vertices.
    pub fn vertex_count(&self) -> i64 {
        self.template.size()[0]
    }

    /// Joints.
    pub fn joint_count(&self) -> i64 {
        self.parents.len() as i64
    }

    /// Numbers of the shape and of the expression.
    pub fn widths(&self) -> [i64; 2] {
        [self.shapes.size()[2], self.expressions.size()[2]]
    }

    /// The model in another number type or on another device.
    pub fn to(&self, kind: Kind, device: Device) -> Self {
        let to = |t: &Tensor| t.to_kind(kind).to_device(device);
        Self {
            template: to(&self.template),
            shapes: to(&self.shapes),
            expressions: to(&self.expressions),
            pose_corrections: to(&self.pose_corrections),
            joint_regressor: to(&self.joint_regressor),
            parents: self.parents.clone(),
            skinning: to(&self.skinning),
            faces: self.faces.clone(),
        }
    }

    /// Heads of shapes `[B, <= S]` and expressions `[B, <= E]` (numbers that are left out are 0) in poses `[B, J, 3]`,
    /// a rotation vector (axis times angle, radians) for each joint relative to its parent.
    ///
    /// # Errors
    /// If a width is larger than the model's, or the batches differ.
    pub fn pose(&self, shape: &Tensor, expression: &Tensor, pose: &Tensor) -> Result<Posed, WeightsError> {
        let (shape_width, expression_width, joints) = (self.widths()[0], self.widths()[1], self.joint_count());
        let heads = pose.size().first().copied().unwrap_or(0);
        let fits = |t: &Tensor, most: i64| matches!(t.size()[..], [b, n] if b == heads && n <= most);
        if !fits(shape, shape_width) || !fits(expression, expression_width) || pose.size() != [heads, joints, 3] {
            return Err(WeightsError::Config {
                place: "linear head".into(),
                reason: format!(
                    "shape {:?}, expression {:?} and pose {:?} were given; it takes [B, up to {shape_width}], [B, up to {expression_width}] and [B, {joints}, 3]",
                    shape.size(),
                    expression.size(),
                    pose.size()
                ),
                hint: "each row is a head".into(),
            });
        }
        let moved = |directions: &Tensor, by: &Tensor| {
            // [B, n] x [n, 3 V]
            by.matmul(&directions.narrow(2, 0, by.size()[1]).flatten(0, 1).transpose(0, 1)).reshape([heads, -1, 3])
        };
        let shaped = &self.template + moved(&self.shapes, shape) + moved(&self.expressions, expression);
        let rest = self.joint_regressor.matmul(&shaped);
        let rotations = rotation_matrices(pose);
        let unit = Tensor::eye(3, (pose.kind(), pose.device()));
        let bend = (rotations.narrow(1, 1, joints - 1) - unit).flatten(1, 3);
        let corrected = shaped + moved(&self.pose_corrections, &bend);

        // world rotation and position of each joint, parents first
        let mut world: Vec<(Tensor, Tensor)> = Vec::new();
        for (joint, parent) in self.parents.iter().enumerate() {
            let (own, at) = (rotations.select(1, joint as i64), rest.select(1, joint as i64));
            world.push(match parent {
                None => (own, at),
                Some(parent) => {
                    let (rotation, position) = &world[*parent];
                    let arm = (at - rest.select(1, *parent as i64)).unsqueeze(2);
                    (rotation.matmul(&own), position + rotation.matmul(&arm).squeeze_dim(2))
                }
            });
        }
        let rotations = Tensor::stack(&world.iter().map(|(r, _)| r).collect::<Vec<_>>(), 1);
        let positions = Tensor::stack(&world.iter().map(|(_, p)| p).collect::<Vec<_>>(), 1);
        // x -> R (x - rest) + position of every joint, averaged by the weights
        let offsets = &positions - rotations.matmul(&rest.unsqueeze(3)).squeeze_dim(3);
        let rotation = self.skinning.matmul(&rotations.flatten(2, 3)).reshape([heads, -1, 3, 3]);
        let offset = self.skinning.matmul(&offsets);
        let vertices = rotation.matmul(&corrected.unsqueeze(3)).squeeze_dim(3) + offset;
        Ok(Posed { vertices, joints: positions })
    }
}

/// Rotation matrices `[.., 3, 3]` of rotation vectors `[.., 3]` (Rodrigues' formula). The angle is taken from a square
/// that is kept off 0, so that gradients at rest are finite; below it the matrix is that of a small angle to the last
/// bit.
pub fn rotation_matrices(vectors: &Tensor) -> Tensor {
    let squared = vectors.square().sum_dim_intlist(-1, true, vectors.kind()).unsqueeze(-1);
    let angle = squared.clamp_min(1e-16).sqrt();
    let (sin, cos): (Tensor, Tensor) = (angle.sin() / &angle, (1.0 - angle.cos()) / angle.square());
    // (1 - cos a) / a^2 loses all digits for small a
    let cos = cos.where_self(&angle.gt(1e-3), &(0.5 - &squared / 24.0));
    let [x, y, z] = [0, 1, 2].map(|i| vectors.select(-1, i));
    let zero = x.zeros_like();
    let row = |a: &Tensor, b: &Tensor, c: &Tensor| Tensor::stack(&[a, b, c], -1);
    let cross = Tensor::stack(&[row(&zero, &-&z, &y), row(&z, &zero, &-&x), row(&-&y, &x, &zero)], -2);
    let unit = Tensor::eye(3, (vectors.kind(), vectors.device()));
    unit + sin * &cross + cos * cross.matmul(&cross)
}

#[cfg(test)]
mod tests;
