//! Lens distortion: OpenCV's rational-tangential model and its fisheye model, two more of COLMAP's, and the maps that
//! take it out of a picture.
//!
//! Points are normalised: camera x and y divided by z. The formulas are those of OpenCV's modules `calib3d` and
//! `fisheye`, of Weng et al. 1992 (thin prisms, here of angles, as COLMAP has them) and of Devernay and Faugeras 2001
//! (FOV); the other published models of COLMAP and nerfstudio are these with some coefficients zero. This file knows no
//! pictures and no file formats.

use crate::Camera;
use glam::DVec2;
use rayon::prelude::*;

/// How a lens bends the picture of a pinhole camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distortion {
    /// Radial by a quotient of polynomials, and tangential: `k1, k2, p1, p2, k3, k4, k5, k6`, in OpenCV's order.
    Rational([f64; 8]),
    /// Radial by a polynomial of the angle to the optical axis: `k1, k2, k3, k4`.
    Fisheye([f64; 4]),
    /// A fisheye lens that is tangential, too, and tilted, as a thin prism would do it: `k1, k2, p1, p2, k3, k4, sx1,
    /// sy1`, in COLMAP's order.
    ThinPrism([f64; 8]),
    /// Radial by an arc tangent: omega, the field of view of an ideal fisheye lens, radians, between -pi and pi. What
    /// is at a distance `r` is seen at `atan(2 r tan(omega / 2)) / omega`.
    Fov(f64),
}

impl Distortion {
    /// Whether nothing is bent. A fisheye lens bends with all coefficients zero, too.
    pub fn is_identity(&self) -> bool {
        match self {
            Self::Rational(k) => k.iter().all(|k| *k == 0.0),
            Self::Fov(omega) => *omega == 0.0,
            Self::Fisheye(_) | Self::ThinPrism(_) => false,
        }
    }

    /// Where the lens puts the normalised point `p` of a pinhole camera, normalised again.
    pub fn distort(&self, p: DVec2) -> DVec2 {
        let r2 = p.length_squared();
        let r = r2.sqrt();
        let radial = p * match self {
            Self::Rational(k) => rational(k, r2),
            // the limit at the axis
            _ if r < 1e-12 => self.radius(1e-6) / 1e-6,
            _ => self.radius(r) / r,
        };
        match *self {
            Self::Rational([_, _, p1, p2, ..]) => radial + tangential(p, p1, p2),
            Self::ThinPrism([_, _, p1, p2, _, _, sx, sy]) => {
                let angles = if r < 1e-12 { p } else { p * (r.atan() / r) };
                radial + tangential(angles, p1, p2) + DVec2::new(sx, sy) * angles.length_squared()
            }
            Self::Fisheye(_) | Self::Fov(_) => radial,
        }
    }

    /// The distance from the axis at which a point at distance `r` is seen, without what is tangential or of a prism.
    fn radius(&self, r: f64) -> f64 {
        match self {
            Self::Rational(k) => r * rational(k, r * r),
            // with none, tangents are as long as their angles
            Self::Fov(0.0) => r,
            Self::Fov(omega) => (r * 2.0 * (0.5 * omega).tan()).atan() / omega,
            Self::Fisheye([k1, k2, k3, k4]) | Self::ThinPrism([k1, k2, _, _, k3, k4, ..]) => {
                let theta = r.atan();
                let t2 = theta * theta;
                theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            }
        }
    }

    /// The distance up to which the model is one of a lens: there the seen distance grows. Polynomials that were fitted
    /// to the middle of a picture turn back further out, and would show the same place twice.
    fn reach(&self, furthest: f64) -> f64 {
        const STEPS: u32 = 2000;
        let mut before = 0.0;
        for step in 1..=STEPS {
            let r = furthest * f64::from(step) / f64::from(STEPS);
            let seen = self.radius(r);
            // a quotient that is not a number is no lens either
            if seen.is_nan() || seen <= before {
                return furthest * f64::from(step - 1) / f64::from(STEPS);
            }
            before = seen;
        }
        f64::INFINITY
    }

    /// For each pixel of the undistorted picture, row by row, where it lies in the distorted one of the same intrinsics
    /// and size: x and y as OpenCV's `remap` takes them, that is, with centres of pixels at integers.
    ///
    /// Where the model does not reach, both are [`OUTSIDE`].
    pub fn maps(&self, camera: &Camera) -> (Vec<f32>, Vec<f32>) {
        let (width, height) = (camera.width as usize, camera.height as usize);
        let to_normalised = camera.intrinsics.inverse();
        let normalised = |x: f64, y: f64| (to_normalised * DVec2::new(x, y).extend(1.0)).truncate();
        let (w, h) = (f64::from(camera.width), f64::from(camera.height));
        let corners = [(0.0, 0.0), (w, 0.0), (0.0, h), (w, h)].map(|(x, y)| normalised(x, y).length());
        let reach = self.reach(corners.into_iter().fold(0.0, f64::max));
        let mut x = vec![OUTSIDE; width * height];
        let mut y = vec![OUTSIDE; width * height];
        let lines = x.par_chunks_mut(width.max(1)).zip(y.par_chunks_mut(width.max(1))).enumerate();
        lines.for_each(|(row, (x, y))| {
            for (column, (x, y)) in x.iter_mut().zip(y).enumerate() {
                let p = normalised(column as f64 + 0.5, row as f64 + 0.5);
                if p.length() <= reach {
                    let seen = camera.intrinsics * self.distort(p).extend(1.0);
                    (*x, *y) = ((seen.x - 0.5) as f32, (seen.y - 0.5) as f32);
                }
            }
        });
        (x, y)
    }
}

/// A place in no picture.
pub const OUTSIDE: f32 = -1.0e4;

fn tangential(DVec2 { x, y }: DVec2, p1: f64, p2: f64) -> DVec2 {
    let r2 = x * x + y * y;
    DVec2::new(2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x), p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y)
}

fn rational(k: &[f64; 8], r2: f64) -> f64 {
    let [k1, k2, _, _, k3, k4, k5, k6] = k;
    (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: DVec2, x: f64, y: f64) {
        assert!((a - DVec2::new(x, y)).length() < 1e-12, "{a} is not ({x}, {y})");
    }

    #[test]
    fn points_by_hand() {
        // r2 = 0.25 at (0.3, 0.4)
        let p = DVec2::new(0.3, 0.4);
        near(Distortion::Rational([0.0; 8]).distort(p), 0.3, 0.4);
        // 1 + 0.4 / 4 = 1.1
        near(Distortion::Rational([0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).distort(p), 0.33, 0.44);
        // 1 + 0.4 / 4 + 0.8 / 16 + 3.2 / 64 = 1.2
        near(Distortion::Rational([0.4, 0.8, 0.0, 0.0, 3.2, 0.0, 0.0, 0.0]).distort(p), 0.36, 0.48);
        // divided by 1 + 0.4 / 4 + 0.8 / 16 + 6.4 / 64 = 1.25
        near(Distortion::Rational([0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.8, 6.4]).distort(p), 0.24, 0.32);
        // p1: x + 2 * 0.1 * 0.12, y + 0.1 * (0.25 + 0.32)
        near(Distortion::Rational([0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]).distort(p), 0.324, 0.457);
        // p2: x + 0.1 * (0.25 + 0.18), y + 2 * 0.1 * 0.12
        near(Distortion::Rational([0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0]).distort(p), 0.343, 0.424);
        // an ideal fisheye lens shows 45 degrees at pi / 4
        near(Distortion::Fisheye([0.0; 4]).distort(DVec2::new(0.0, 1.0)), 0.0, std::f64::consts::FRAC_PI_4);
        let theta = std::f64::consts::FRAC_PI_4;
        let seen = theta + 0.1 * theta.powi(3) + 0.2 * theta.powi(5) + 0.3 * theta.powi(7) + 0.4 * theta.powi(9);
        near(Distortion::Fisheye([0.1, 0.2, 0.3, 0.4]).distort(DVec2::new(1.0, 0.0)), seen, 0.0);
        near(Distortion::Fisheye([0.1; 4]).distort(DVec2::ZERO), 0.0, 0.0);
        assert!(Distortion::Rational([0.0; 8]).is_identity() && !Distortion::Fisheye([0.0; 4]).is_identity());
    }

    #[test]
    fn lenses_of_colmap_by_hand() {
        // r = 1 at (0.6, 0.8), and omega = pi / 2 has 2 tan(omega / 2) = 2: seen at atan(2) / (pi / 2) = 0.704832764699
        let p = DVec2::new(0.6, 0.8);
        let quarter = Distortion::Fov(std::f64::consts::FRAC_PI_2);
        near(quarter.distort(p), 0.422_899_658_819_480_05, 0.563_866_211_759_306_8);
        // what is at 1 / 2 stays there: atan(tan(omega / 2)) / omega
        near(Distortion::Fov(0.9).distort(DVec2::new(0.3, -0.4)), 0.3, -0.4);
        // the limit at the axis is 2 tan(omega / 2) / omega
        let near_axis = Distortion::Fov(0.9).distort(DVec2::new(1e-13, 0.0)).x;
        assert!((near_axis / 1e-13 - 1.073_455_701_370_174_2).abs() < 1e-9, "{near_axis}");
        near(Distortion::Fov(0.0).distort(p), 0.6, 0.8);
        assert!(Distortion::Fov(0.0).is_identity() && !quarter.is_identity());
        // angles a = (0.6, 0.8) pi / 4 with t = |a|^2, K = 0.1 t + 0.2 t^2 + 0.3 t^3 + 0.4 t^4:
        // x = a + a K + 2 * 0.01 a b + 0.02 (t + 2 a^2) + 0.03 t
        // y = b + b K + 2 * 0.02 a b + 0.01 (t + 2 b^2) + 0.04 t
        let prism = Distortion::ThinPrism([0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.03, 0.04]);
        near(prism.distort(p), 0.642_288_862_558_464_5, 0.846_104_312_160_151_4);
        near(prism.distort(DVec2::ZERO), 0.0, 0.0);
        assert!(!Distortion::ThinPrism([0.0; 8]).is_identity(), "it is a fisheye lens still");
        // without what is tangential it is the other one
        let plain = Distortion::ThinPrism([0.1, 0.2, 0.0, 0.0, 0.3, 0.4, 0.0, 0.0]).distort(p);
        assert_eq!(plain, Distortion::Fisheye([0.1, 0.2, 0.3, 0.4]).distort(p));
    }

    #[test]
    fn maps_lead_back() {
        // along the diagonal: omega by its inverse, tan(r omega) / (2 tan(omega / 2)), and a fisheye lens without
        // coefficients by tan(r)
        let camera = camera(40.0, 100, 100);
        let omega = 1.2f64;
        let lenses: [(Distortion, &dyn Fn(f64) -> f64); 2] = [
            (Distortion::Fov(omega), &|r| (r * omega).tan() / (2.0 * (0.5 * omega).tan())),
            (Distortion::ThinPrism([0.0; 8]), &|r| r.tan()),
        ];
        for (lens, back) in lenses {
            let (x, y) = lens.maps(&camera);
            for at in (0..100 * 100).step_by(101) {
                let pixel = DVec2::new((at % 100) as f64 + 0.5, (at / 100) as f64 + 0.5);
                let seen = (DVec2::new(f64::from(x[at]) + 0.5, f64::from(y[at]) + 0.5) - 50.0) / 40.0;
                let found = seen * (back(seen.length()) / seen.length()) * 40.0 + 50.0;
                assert!((found - pixel).length() < 1e-3, "{lens:?}: {found} is not {pixel}");
            }
        }
    }

    fn camera(focal: f64, width: u32, height: u32) -> Camera {
        let k = [focal, 0.0, f64::from(width) / 2.0, 0.0, focal, f64::from(height) / 2.0, 0.0, 0.0, 1.0];
        let pose = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        Camera::from_row_major(&k, &pose, width, height)
    }

    #[test]
    fn maps_have_centres_at_integers() {
        let (x, y) = Distortion::Rational([0.0; 8]).maps(&camera(10.0, 4, 3));
        for (at, (x, y)) in x.iter().zip(&y).enumerate() {
            assert!((x - (at % 4) as f32).abs() < 1e-5 && (y - (at / 4) as f32).abs() < 1e-5, "{at}: {x}, {y}");
        }
        // pixel (3, 1) of 4 x 3 has its centre at (3.5, 1.5), which is (0.15, 0) normalised; 1 + 4 * 0.0225 = 1.09
        // bends it to 0.1635, 3.635 px from the left edge
        let (x, y) = Distortion::Rational([4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).maps(&camera(10.0, 4, 3));
        assert!((x[7] - 3.135).abs() < 1e-5 && (y[7] - 1.0).abs() < 1e-5, "{}, {}", x[7], y[7]);
    }

    #[test]
    fn what_folds_back_is_outside() {
        // r (1 - r2) grows up to r = 0.577; a picture of 90 degrees reaches 1 at its edge
        let (x, _) = Distortion::Rational([-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).maps(&camera(50.0, 100, 100));
        let line = &x[50 * 100..51 * 100];
        let inside: Vec<usize> = (0..100).filter(|at| line[*at] != OUTSIDE).collect();
        assert_eq!((inside.first(), inside.last()), (Some(&21), Some(&78)), "28.9 px from the middle");
        assert!(inside.windows(2).all(|pair| line[pair[0]] < line[pair[1]]));
    }
}
