//! Structural similarity (Wang et al. 2004) and its multi-scale form (Wang et al. 2003), in the definitions that papers and
//! packages use; they differ by up to some hundredths, so every figure has to say which one it is. Constants (0.01)^2 and
//! (0.03)^2, data range 1. Does not know what a mask shows.
//!
//! Windows are separable; a row of the picture is blurred once and kept until the last window that needs it has passed. Values
//! are halved around 0 first, which keeps single precision within 1e-6 of the double.

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

/// Weights of the five scales, finest first (Wang et al. 2003).
const SCALES: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

impl Definition {
    /// The shorter side of the smallest picture that has a similarity: a window fits in.
    pub const fn least_side(self) -> usize {
        match self {
            Definition::Torchmetrics | Definition::Gaussian => 11,
            Definition::Uniform7 => 7,
        }
    }

    /// The same of five scales, as the two packages ask for it: at the coarsest one torchmetrics fits a window in (176), and
    /// pytorch-msssim the ten pixels between a window's first and last (161). None for `Uniform7`, which has no such form.
    pub const fn least_multi_scale_side(self) -> Option<usize> {
        match self {
            Definition::Torchmetrics => Some(11 << (SCALES.len() - 1)),
            Definition::Gaussian => Some((10 << (SCALES.len() - 1)) + 1),
            Definition::Uniform7 => None,
        }
    }
}

/// SSIM of two images `height x width x channels`, mean over channels.
///
/// # Panics
/// If the sizes do not fit, or the image is smaller than the window.
pub fn ssim(a: &[u8], b: &[u8], width: usize, height: usize, channels: usize, definition: Definition) -> f64 {
    assert!(a.len() == width * height * channels && b.len() == a.len(), "images of {width} x {height} x {channels}");
    let window = Window::of(definition);
    let sum: f64 = (0..channels).map(|c| window.compare(&Plane::of(a, b, width, height, channels, c)).similarity).sum();
    sum / channels as f64
}

/// SSIM over the windows whose middle lies in `mask` (`height x width`); what a window sees may lie outside of it. None if there is no such window.
///
/// # Panics
/// As [`ssim`], and if the mask does not fit.
pub fn masked_ssim(
    [a, b]: [&[u8]; 2],
    [width, height]: [usize; 2],
    channels: usize,
    mask: &[bool],
    definition: Definition,
) -> Option<f64> {
    assert!(a.len() == width * height * channels && b.len() == a.len(), "images of {width} x {height} x {channels}");
    assert_eq!(mask.len(), width * height, "a mask of {width} x {height}");
    let window = Window::of(definition);
    let (mut sum, mut count) = (0.0, 0usize);
    for channel in 0..channels {
        window.each_row(&Plane::of(a, b, width, height, channels, channel), |y, blurred| {
            let inside = window.border..width - window.border;
            for x in inside.filter(|x| mask[y * width + x]) {
                let at = |k: usize| blurred[k * width + x];
                sum += f64::from(window.local(at(0), at(1), at(2), at(3)).0);
                count += 1;
            }
        });
    }
    (count > 0).then(|| sum / count as f64)
}

/// MS-SSIM of two images `height x width x channels`: contrast and structure at five scales, each half as large as the one
/// before (means of 2 x 2), luminance at the coarsest.
///
/// `Gaussian` leaves the border out at every scale and multiplies the scales for each channel, as pytorch-msssim does.
/// `Torchmetrics` does as that package: it takes means over all channels before it multiplies, and leaves the border out of
/// contrast and structure, but not of the coarsest scale's whole. Negative factors count as 0. None for images with a side
/// below [`Definition::least_multi_scale_side`], and for `Uniform7`, which has no multi-scale form.
///
/// # Panics
/// If the sizes do not fit.
pub fn ms_ssim(
    a: &[u8],
    b: &[u8],
    width: usize,
    height: usize,
    channels: usize,
    definition: Definition,
) -> Option<f64> {
    assert!(a.len() == width * height * channels && b.len() == a.len(), "images of {width} x {height} x {channels}");
    definition.least_multi_scale_side().filter(|least| width.min(height) >= *least)?;
    let (contrast, whole) = (Window::of(Definition::Gaussian), Window::of(definition));
    let mut planes: Vec<Plane> = (0..channels).map(|c| Plane::of(a, b, width, height, channels, c)).collect();
    // by scale, then by channel
    let mut factors: Vec<Vec<f64>> = Vec::new();
    for scale in 0..SCALES.len() {
        if scale > 0 {
            planes.iter_mut().for_each(|plane| *plane = plane.halved(definition));
        }
        let last = scale + 1 == SCALES.len();
        let factor = |plane: &Plane| {
            if last { whole.compare(plane).similarity } else { contrast.compare(plane).contrast }
        };
        factors.push(planes.iter().map(factor).collect());
    }
    let product = |means: &mut dyn Iterator<Item = f64>| -> f64 {
        means.zip(SCALES).map(|(mean, weight)| mean.max(0.0).powf(weight)).product()
    };
    Some(match definition {
        Definition::Torchmetrics => product(&mut factors.iter().map(|of| of.iter().sum::<f64>() / channels as f64)),
        _ => (0..channels).map(|c| product(&mut factors.iter().map(|of| of[c]))).sum::<f64>() / channels as f64,
    })
}

/// Means over the positions of a window.
struct Likeness {
    /// Luminance, contrast and structure.
    similarity: f64,
    /// Contrast and structure.
    contrast: f64,
}

/// One channel of both images, around 0: value / 255 - 0.5.
struct Plane {
    a: Vec<f32>,
    b: Vec<f32>,
    width: usize,
    height: usize,
}

impl Plane {
    fn of(a: &[u8], b: &[u8], width: usize, height: usize, channels: usize, channel: usize) -> Plane {
        let plane = |image: &[u8]| -> Vec<f32> {
            image.chunks_exact(channels).map(|pixel| f32::from(pixel[channel]) / 255.0 - 0.5).collect()
        };
        Plane { a: plane(a), b: plane(b), width, height }
    }

    /// Half as large: means of 2 x 2 px. Of an odd side torchmetrics drops the last pixel; pytorch-msssim puts zeros around,
    /// and so takes the first pixel as half of a mean with 0.
    fn halved(&self, definition: Definition) -> Plane {
        let odd = |side: usize| if definition == Definition::Torchmetrics { 0 } else { side % 2 };
        let (dx, dy) = (odd(self.width), odd(self.height));
        let (width, height) = ((self.width + 2 * dx - 2) / 2 + 1, (self.height + 2 * dy - 2) / 2 + 1);
        let half = |plane: &[f32]| -> Vec<f32> {
            let at = |x: usize, y: usize| {
                let inside = x >= dx && y >= dy && x - dx < self.width && y - dy < self.height;
                // outside lies 0, which is -0.5 here
                if inside { plane[(y - dy) * self.width + x - dx] } else { -0.5 }
            };
            let mean = |x: usize, y: usize| at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1);
            (0..width * height).map(|i| mean(i % width * 2, i / width * 2) / 4.0).collect()
        };
        Plane { a: half(&self.a), b: half(&self.b), width, height }
    }
}

/// Sums run in so many lanes, so that they can be added side by side; the order is fixed.
const LANES: usize = 16;

/// A separable, symmetric window and how it is used.
struct Window {
    /// From the middle outwards.
    taps: Vec<f32>,
    /// Pixels left out on each side.
    border: usize,
    /// From population to sample covariance.
    unbiased: f32,
}

impl Window {
    fn of(definition: Definition) -> Window {
        match definition {
            Definition::Torchmetrics => Window { taps: gaussian(5, 1.5), border: 0, unbiased: 1.0 },
            Definition::Gaussian => Window { taps: gaussian(5, 1.5), border: 5, unbiased: 1.0 },
            Definition::Uniform7 => Window { taps: vec![1.0 / 7.0; 4], border: 3, unbiased: 49.0 / 48.0 },
        }
    }

    fn radius(&self) -> usize {
        self.taps.len() - 1
    }

    fn compare(&self, plane: &Plane) -> Likeness {
        let (mut similarity, mut contrast) = (0.0, 0.0);
        self.each_row(plane, |_, blurred| {
            let (ssim, cs) = self.row(blurred, plane.width);
            similarity += ssim;
            contrast += cs;
        });
        let count = ((plane.width - 2 * self.border) * (plane.height - 2 * self.border)) as f64;
        Likeness { similarity: similarity / count, contrast: contrast / count }
    }

    /// Calls `each` with every row of windows that counts: its number, and four planes of a row's width one after another, which are
    /// the means of both images, of the sum of their squares and of their product.
    fn each_row(&self, plane: &Plane, mut each: impl FnMut(usize, &[f32])) {
        let (width, height, radius) = (plane.width, plane.height, self.radius());
        let size = 2 * radius + 1;
        assert!(width >= size && height >= size, "an image of {width} x {height} px is smaller than the window");
        // the last rows, blurred across: means of both, mean of the sum of squares, mean of the product
        let mut rows = vec![vec![0f32; 4 * width]; size];
        let mut scratch = Scratch::new(width, radius);
        let mut blurred = vec![0f32; 4 * width];
        let first = self.border as i64 - radius as i64;
        let last = (height - self.border + radius) as i64;
        for (step, y) in (first..last).enumerate() {
            let source = reflect(y, height) * width;
            let place = step % size;
            scratch.blur(
                &plane.a[source..source + width],
                &plane.b[source..source + width],
                &self.taps,
                &mut rows[place],
            );
            if step + 1 < size {
                continue;
            }
            // the row in the middle of those that are kept
            let row = |back: usize| &rows[(step - back) % size];
            weigh(&mut blurred, row(radius), self.taps[0]);
            for (k, &tap) in self.taps.iter().enumerate().skip(1) {
                add_pair(&mut blurred, row(radius - k), row(radius + k), tap);
            }
            each((y - radius as i64) as usize, &blurred);
        }
    }

    /// Of one window: SSIM, and contrast and structure alone.
    #[inline(always)]
    fn local(&self, ma: f32, mb: f32, squares: f32, product: f32) -> (f32, f32) {
        const C1: f32 = 0.01 * 0.01;
        const C2: f32 = 0.03 * 0.03;
        let variances = (squares - ma * ma - mb * mb).max(0.0) * self.unbiased;
        let covariance = (product - ma * mb) * self.unbiased;
        let (ua, ub) = (ma + 0.5, mb + 0.5);
        let cs = (2.0 * covariance + C2) / (variances + C2);
        (cs * (2.0 * ua * ub + C1) / (ua * ua + ub * ub + C1), cs)
    }

    /// Sums over a row of windows.
    fn row(&self, blurred: &[f32], width: usize) -> (f64, f64) {
        let inside = self.border..width - self.border;
        let part = |k: usize| &blurred[k * width..][inside.clone()];
        let (ma, mb, squares, products) = (part(0), part(1), part(2), part(3));
        let (mut similarity, mut contrast) = ([0f32; LANES], [0f32; LANES]);
        let chunks = ma.chunks(LANES).zip(mb.chunks(LANES)).zip(squares.chunks(LANES)).zip(products.chunks(LANES));
        for (((ma, mb), squares), products) in chunks {
            for i in 0..ma.len() {
                let (ssim, cs) = self.local(ma[i], mb[i], squares[i], products[i]);
                similarity[i] += ssim;
                contrast[i] += cs;
            }
        }
        let sum = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum();
        (sum(similarity), sum(contrast))
    }
}

/// A row of both images with its reflected ends, and what is blurred of it.
struct Scratch {
    padded: [Vec<f32>; 4],
    radius: usize,
}

impl Scratch {
    fn new(width: usize, radius: usize) -> Scratch {
        Scratch { padded: std::array::from_fn(|_| vec![0f32; width + 2 * radius]), radius }
    }

    /// Blurs a row across; `out` holds the four planes one after another.
    fn blur(&mut self, a: &[f32], b: &[f32], taps: &[f32], out: &mut [f32]) {
        let (width, radius) = (a.len(), self.radius);
        let [pa, pb, squares, products] = &mut self.padded;
        for (padded, row) in [(&mut *pa, a), (&mut *pb, b)] {
            padded[radius..radius + width].copy_from_slice(row);
            for k in 1..=radius {
                padded[radius - k] = row[reflect(-(k as i64), width)];
                padded[radius + width + k - 1] = row[reflect((width + k - 1) as i64, width)];
            }
        }
        for (((square, product), a), b) in squares.iter_mut().zip(products.iter_mut()).zip(&*pa).zip(&*pb) {
            (*square, *product) = (a * a + b * b, a * b);
        }
        for (padded, out) in self.padded.iter().zip(out.chunks_exact_mut(width)) {
            weigh(out, &padded[radius..radius + width], taps[0]);
            for (k, &tap) in taps.iter().enumerate().skip(1) {
                add_pair(out, &padded[radius - k..][..width], &padded[radius + k..][..width], tap);
            }
        }
    }
}

fn weigh(out: &mut [f32], row: &[f32], tap: f32) {
    out.iter_mut().zip(row).for_each(|(out, value)| *out = tap * value);
}

fn add_pair(out: &mut [f32], left: &[f32], right: &[f32], tap: f32) {
    out.iter_mut().zip(left).zip(right).for_each(|((out, left), right)| *out += tap * (left + right));
}

/// The right half of a Gaussian, from its middle.
fn gaussian(radius: i32, sigma: f64) -> Vec<f32> {
    let tap = |i: i32| (-0.5 * (f64::from(i) / sigma).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(tap).sum();
    (0..=radius).map(|i| (tap(i) / sum) as f32).collect()
}

/// Where a place beyond the ends is mirrored to, without repeating the end.
fn reflect(i: i64, n: usize) -> usize {
    let last = n as i64 - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(width: usize, height: usize) -> (Vec<u8>, Vec<u8>) {
        let a: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
        let b = a.iter().map(|v| v / 2 + 20).collect();
        (a, b)
    }

    #[test]
    fn an_image_is_like_itself_and_order_does_not_matter() {
        let (a, b) = pair(16, 12);
        for definition in [Definition::Torchmetrics, Definition::Gaussian, Definition::Uniform7] {
            assert!((ssim(&a, &a, 16, 12, 3, definition) - 1.0).abs() < 1e-6);
            let (ab, ba) = (ssim(&a, &b, 16, 12, 3, definition), ssim(&b, &a, 16, 12, 3, definition));
            assert!((ab - ba).abs() < 1e-6 && ab < 0.95);
        }
    }

    #[test]
    fn a_mask_chooses_windows_by_their_middle() {
        let (a, mut b) = pair(40, 30);
        // equal on the left half
        for y in 0..30 {
            b[y * 120..y * 120 + 60].copy_from_slice(&a[y * 120..y * 120 + 60]);
        }
        let over = |mask: &dyn Fn(usize, usize) -> bool, definition| {
            let mask: Vec<bool> = (0..40 * 30).map(|i| mask(i % 40, i / 40)).collect();
            masked_ssim([&a, &b], [40, 30], 3, &mask, definition)
        };
        for definition in [Definition::Torchmetrics, Definition::Gaussian, Definition::Uniform7] {
            let whole = ssim(&a, &b, 40, 30, 3, definition);
            assert!((over(&|_, _| true, definition).unwrap() - whole).abs() < 1e-6);
            assert!(
                (over(&|x, _| x < 15, definition).unwrap() - 1.0).abs() < 1e-6,
                "no window there sees the other half"
            );
            let (left, right) = (over(&|x, _| x < 20, definition).unwrap(), over(&|x, _| x >= 20, definition).unwrap());
            assert!(right < 0.9 && ((left + right) / 2.0 - whole).abs() < 1e-6, "{left} {right} {whole}");
            assert_eq!(over(&|_, _| false, definition), None);
        }
        assert_eq!(over(&|x, _| x < 5, Definition::Gaussian), None, "the border does not count");
    }

    #[test]
    fn five_scales_need_room() {
        let (a, b) = pair(177, 190);
        for definition in [Definition::Torchmetrics, Definition::Gaussian] {
            assert!((ms_ssim(&a, &a, 177, 190, 3, definition).unwrap() - 1.0).abs() < 1e-6);
            let ab = ms_ssim(&a, &b, 177, 190, 3, definition).unwrap();
            assert!((0.1..0.95).contains(&ab), "{ab}");
        }
        for (definition, side) in [(Definition::Gaussian, 161), (Definition::Torchmetrics, 176)] {
            let (a, b) = pair(side, 190);
            assert!(ms_ssim(&a, &b, side, 190, 3, definition).is_some_and(|value| value.is_finite()), "{definition:?}");
            let (a, b) = pair(190, side - 1);
            assert_eq!(ms_ssim(&a, &b, 190, side - 1, 3, definition), None);
        }
    }
}
