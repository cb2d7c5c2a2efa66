//! Roots of `map(x) = target` for many points at once, and their gradients by the implicit function theorem. Knows no
//! networks.
//!
//! Broyden's method as NPHM's point-cloud fitting uses it (exact inverse Jacobian at the start, rank-1 updates of the
//! inverse), then Newton steps where more accuracy is asked for. The best iterate of each point is kept.

use tch::{Kind, Tensor};

/// When to stop.
#[derive(Clone, Debug)]
pub struct Options {
    /// Broyden iterations; published 15.
    pub broyden_steps: usize,
    /// Newton iterations afterwards; each costs three backward passes.
    pub newton_steps: usize,
    /// A point has converged when its residual's length is below this; published 1e-6.
    pub converge: f64,
    /// A point is given up when its residual's length is above this; published 0.2.
    pub diverge: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { broyden_steps: 15, newton_steps: 0, converge: 1e-6, diverge: 0.2 }
    }
}

/// What [`solve`] found.
pub struct Root {
    /// `[B, N, 3]`; differentiable in the target and in whatever `map` depends on.
    pub x: Tensor,
    /// `[B, N]` length of `map(x) - target`.
    pub residual: Tensor,
    /// `[B, N]` booleans: points that did not converge should be left out of a loss.
    pub converged: Tensor,
}

/// Solves `map(x) = target` from `start`; all `[B, N, 3]`, and `map` treats points independently of each other.
pub fn solve(map: &dyn Fn(&Tensor) -> Tensor, target: &Tensor, start: &Tensor, options: &Options) -> Root {
    let goal = target.detach();
    let (mut x, mut residual) = broyden(map, &goal, start, options);
    for _ in 0..options.newton_steps {
        let (value, inverse) = linearize(map, &x);
        let next = &x - apply(&inverse, &(value - &goal));
        let length = norm(&(tch::no_grad(|| map(&next)) - &goal));
        let better = length.less_tensor(&residual);
        x = next.where_self(&better.unsqueeze(2), &x);
        residual = length.where_self(&better, &residual);
    }
    // dx = -J^-1 dg with g = map(x) - target: the value does not change, the gradient does
    let (_, inverse) = linearize(map, &x);
    let g = map(&x) - target;
    let x = &x - apply(&inverse, &(&g - g.detach()));
    Root { x, converged: residual.less(options.converge), residual }
}

/// Value `[B, N, 3]` and inverse Jacobian `[B, N, 3, 3]` of `map` at `x`, detached.
fn linearize(map: &dyn Fn(&Tensor) -> Tensor, x: &Tensor) -> (Tensor, Tensor) {
    let x = x.detach().copy().set_requires_grad(true);
    // a caller may have gradients off, and without a graph of the sums libtorch crashes
    let (value, sums) = tch::with_grad(|| {
        let value = map(&x);
        let sums = [0, 1, 2].map(|i| value.select(2, i).sum(value.kind()));
        (value, sums)
    });
    let rows = sums.map(|sum| Tensor::run_backward(&[sum], &[&x], true, false).remove(0));
    (value.detach(), Tensor::linalg_inv(&Tensor::stack(&rows, 2)))
}

fn broyden(map: &dyn Fn(&Tensor) -> Tensor, goal: &Tensor, start: &Tensor, options: &Options) -> (Tensor, Tensor) {
    let mut x = start.detach();
    let (value, mut inverse) = linearize(map, &x);
    let mut g = value - goal;
    let (mut best, mut least) = (x.copy(), norm(&g));
    let mut active = least.ge(options.converge);
    for _ in 0..options.broyden_steps {
        if active.any().int64_value(&[]) == 0 {
            break;
        }
        let going = active.to_kind(x.kind()).unsqueeze(2);
        let dx = -apply(&inverse, &g) * &going;
        x = &x + &dx;
        let next = tch::no_grad(|| map(&x)) - goal;
        let dg = (&next - &g) * &going;
        g = next;
        let length = norm(&g);
        let better = length.less_tensor(&least);
        best = x.where_self(&better.unsqueeze(2), &best);
        least = length.where_self(&better, &least);
        active = active.logical_and(&least.ge(options.converge)).logical_and(&length.le(options.diverge));

        // inverse += (dx - inverse dg) (dx^T inverse) / (dx^T inverse dg)
        let row = dx.unsqueeze(2).matmul(&inverse);
        let denominator = row.matmul(&dg.unsqueeze(3));
        let guard = (denominator.ge(0.0).to_kind(x.kind()) * 2.0 - 1.0) * 1e-6;
        let column = (&dx - apply(&inverse, &dg)).unsqueeze(3);
        inverse += column.matmul(&row) / (denominator + guard);
    }
    (best, least)
}

fn apply(matrix: &Tensor, vector: &Tensor) -> Tensor {
    matrix.matmul(&vector.unsqueeze(3)).squeeze_dim(3)
}

fn norm(v: &Tensor) -> Tensor {
    v.square().sum_dim_intlist(2, false, None::<Kind>).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    #[test]
    fn broyden_finds_what_newton_finds_and_gradients_are_implicit() {
        let a = (init::normal(1, 1, &[3, 3]) * 0.2).to_kind(Kind::Double);
        let z = Tensor::from_slice(&[0.3f64]).set_requires_grad(true);
        let map = |x: &Tensor, z: &Tensor| x + (x.matmul(&a) * 3.0 + z).sin() * 0.15;
        let target = (init::normal(1, 2, &[2, 20, 3]) * 0.5).to_kind(Kind::Double);
        let options = |broyden_steps, newton_steps| Options { broyden_steps, newton_steps, ..Options::default() };
        let at = |z: &Tensor, o: &Options| solve(&|x: &Tensor| map(x, z), &target, &target, o);
        let broyden = at(&z, &options(15, 0));
        let newton = at(&z, &options(0, 8));
        assert_eq!(broyden.converged.all().int64_value(&[]), 1);
        assert!((&broyden.x - &newton.x).abs().max().double_value(&[]) < 3e-6);
        assert!(newton.residual.max().double_value(&[]) < 1e-14);

        let gradient =
            Tensor::run_backward(&[newton.x.sum(Kind::Double)], &[&z], false, false).remove(0).double_value(&[0]);
        let shifted = |d: f64| at(&(z.detach() + d), &options(0, 8)).x.sum(Kind::Double).double_value(&[]);
        let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
        assert!((gradient - numeric).abs() < 1e-6 * numeric.abs(), "{gradient} {numeric}");
    }

    #[test]
    fn points_without_a_root_are_reported() {
        let root = solve(
            &|x| x.square() * 0.5,
            &Tensor::from_slice(&[-1f32, 0.5, 0.5]).reshape([1, 1, 3]),
            &Tensor::ones([1, 1, 3], tch::kind::FLOAT_CPU),
            &Options::default(),
        );
        assert_eq!(root.converged.any().int64_value(&[]), 0);
    }
}
