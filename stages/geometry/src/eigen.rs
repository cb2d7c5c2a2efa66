//! Eigenvalues and eigenvectors of small symmetric matrices by Jacobi rotations.
//!
//! Slow for large matrices, exact to rounding and deterministic for the 3 x 3 and 4 x 4 ones of this crate.

/// Eigenvalues in ascending order, and the unit eigenvector of each (`vectors[k]` belongs to `values[k]`).
///
/// Only the values on and above the diagonal are read.
pub fn symmetric_eigen<const N: usize>(matrix: &[[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let mut a = *matrix;
    for i in 0..N {
        for j in 0..i {
            a[i][j] = a[j][i];
        }
    }
    let mut v = [[0.0; N]; N];
    (0..N).for_each(|i| v[i][i] = 1.0);
    // Converges quadratically; six sweeps are usual, the bound is for matrices that are not finite.
    for _ in 0..50 {
        let off: f64 = (0..N).flat_map(|i| (i + 1..N).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        let on: f64 = (0..N).map(|i| a[i][i] * a[i][i]).sum();
        if off <= on * 1e-32 {
            break;
        }
        for p in 0..N {
            for q in p + 1..N {
                rotate(&mut a, &mut v, p, q);
            }
        }
    }
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_by(|l, r| a[*l][*l].total_cmp(&a[*r][*r]));
    (order.map(|k| a[k][k]), order.map(|k| std::array::from_fn(|i| v[i][k])))
}

/// One rotation in the plane (p, q) that makes `a[p][q]` zero; the columns of `v` follow.
fn rotate<const N: usize>(a: &mut [[f64; N]; N], v: &mut [[f64; N]; N], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    // The smaller of the two possible rotations.
    let t = if theta >= 0.0 { 1.0 } else { -1.0 } / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..N {
        let (x, y) = (a[k][p], a[k][q]);
        (a[k][p], a[k][q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..N {
        let (x, y) = (a[p][k], a[q][k]);
        (a[p][k], a[q][k]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[k][p], v[k][q]);
        (v[k][p], v[k][q]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_satisfy_their_equation() {
        let m = [[4.0, 1.0, -2.0, 0.5], [1.0, 3.0, 0.3, 1.0], [-2.0, 0.3, -1.0, 0.0], [0.5, 1.0, 0.0, 2.0]];
        let (values, vectors) = symmetric_eigen(&m);
        assert!(values.windows(2).all(|w| w[0] <= w[1]));
        for (value, x) in values.iter().zip(vectors) {
            for i in 0..4 {
                let product: f64 = (0..4).map(|j| m[i][j] * x[j]).sum();
                assert!((product - value * x[i]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn diagonal_and_zero_matrices() {
        assert_eq!(symmetric_eigen(&[[2.0, 0.0], [0.0, -1.0]]).0, [-1.0, 2.0]);
        assert_eq!(symmetric_eigen(&[[0.0; 3]; 3]).0, [0.0; 3]);
    }
}
