//! Structural similarity (Wang et al. 2004) in the three definitions that papers and packages use; they differ by up to
//! some hundredths, so every figure has to say which one it is. Constants (0.01)^2 and (0.03)^2, data range 1, mean over
//! channels. Knows no masks.

/// Which window, border and covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// 11-tap Gaussian of sigma 1.5, reflected borders, mean over the whole image (torchmetrics).
    Torchmetrics,
    /// The same window, population covariance, a border of 5 px left out (scikit-image with `gaussian_weights`, the usual
    /// value of papers).
    Gaussian,
    /// 7 x 7 box, sample covariance, a border of 3 px left out (scikit-image's defaults).
    Uniform7,
}

/// SSIM of two images `height x width x channels`.
///
/// # Panics
/// If the sizes do not fit, or the image is smaller than the window.
pub fn ssim(a: &[u8], b: &[u8], width: usize, height: usize, channels: usize, definition: Definition) -> f64 {
    assert!(a.len() == width * height * channels && b.len() == a.len(), "images of {width} x {height} x {channels}");
    let (taps, unbiased): (Vec<f64>, f64) = match definition {
        Definition::Torchmetrics | Definition::Gaussian => (gaussian(5, 1.5), 1.0),
        Definition::Uniform7 => (vec![1.0 / 7.0; 7], 49.0 / 48.0),
    };
    let radius = taps.len() / 2;
    assert!(
        width >= taps.len() && height >= taps.len(),
        "an image of {width} x {height} px is smaller than the window"
    );
    let border = if definition == Definition::Torchmetrics { 0 } else { radius };
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let mut sum = 0.0;
    for c in 0..channels {
        let plane = |image: &[u8]| -> Vec<f64> {
            image.iter().skip(c).step_by(channels).map(|&value| f64::from(value) / 255.0).collect()
        };
        let (x, y) = (plane(a), plane(b));
        let product = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * q).collect::<Vec<_>>();
        let blur = |p: &[f64]| filter(p, width, height, &taps);
        let (mx, my) = (blur(&x), blur(&y));
        let (xx, yy, xy) = (blur(&product(&x, &x)), blur(&product(&y, &y)), blur(&product(&x, &y)));
        let mut channel = 0.0;
        for row in border..height - border {
            for i in row * width + border..(row + 1) * width - border {
                let (ux, uy) = (mx[i], my[i]);
                let (vx, vy) = ((xx[i] - ux * ux).max(0.0) * unbiased, (yy[i] - uy * uy).max(0.0) * unbiased);
                let vxy = (xy[i] - ux * uy) * unbiased;
                let (luminance, structure) = ((2.0 * ux * uy + c1), (2.0 * vxy + c2));
                channel += luminance * structure / ((ux * ux + uy * uy + c1) * (vx + vy + c2));
            }
        }
        sum += channel / ((width - 2 * border) * (height - 2 * border)) as f64;
    }
    sum / channels as f64
}

fn gaussian(radius: i32, sigma: f64) -> Vec<f64> {
    let taps: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp()).collect();
    let sum: f64 = taps.iter().sum();
    taps.into_iter().map(|tap| tap / sum).collect()
}

/// A separable filter; borders are reflected without repeating the edge.
fn filter(plane: &[f64], width: usize, height: usize, taps: &[f64]) -> Vec<f64> {
    let radius = taps.len() as i64 / 2;
    let reflect = |i: i64, n: usize| {
        let last = n as i64 - 1;
        let i = i.abs();
        (if i > last { 2 * last - i } else { i }) as usize
    };
    let mut across = vec![0.0; plane.len()];
    for y in 0..height {
        for x in 0..width {
            let tap = |(k, tap): (usize, &f64)| tap * plane[y * width + reflect(x as i64 + k as i64 - radius, width)];
            across[y * width + x] = taps.iter().enumerate().map(tap).sum();
        }
    }
    let mut out = vec![0.0; plane.len()];
    for y in 0..height {
        for (k, tap) in taps.iter().enumerate() {
            let from = reflect(y as i64 + k as i64 - radius, height) * width;
            for x in 0..width {
                out[y * width + x] += tap * across[from + x];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_like_itself_and_order_does_not_matter() {
        let a: Vec<u8> = (0..16 * 12 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let b: Vec<u8> = a.iter().map(|v| v / 2 + 20).collect();
        for definition in [Definition::Torchmetrics, Definition::Gaussian, Definition::Uniform7] {
            assert!((ssim(&a, &a, 16, 12, 3, definition) - 1.0).abs() < 1e-12);
            let (ab, ba) = (ssim(&a, &b, 16, 12, 3, definition), ssim(&b, &a, 16, 12, 3, definition));
            assert!((ab - ba).abs() < 1e-12 && ab < 0.95);
        }
    }
}
