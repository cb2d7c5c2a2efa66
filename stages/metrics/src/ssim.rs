//! Structural similarity (Wang et al. 2004) and its multi-scale form (Wang et al. 2003), in the definitions that papers
//! and packages use; they differ by up to some hundredths, so every figure has to say which one it is. Constants
//! (0.01)^2 and (0.03)^2, data range 1. Does not know what a mask shows.
//!
//! Windows are separable; a row of the picture is blurred once and kept until the last window that needs it has passed.
//! Levels are taken around their middle, which single precision holds exactly at each scale; sums are of double
//! precision, since a variance is a small difference of large ones. So a picture is like itself by exactly 1.

/// Which window, border and covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// 11-tap Gaussian of sigma 1.5, reflected borders, mean over the whole image (torchmetrics).
    Torchmetrics,
    /// The same window, population covariance, a border of 5 px left out (scikit-image with `gaussian_weights`, the
    /// usual value of papers).
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

    /// The same of five scales, as the two packages ask for it: at the coarsest one torchmetrics fits a window in
    /// (176), and pytorch-msssim the ten pixels between a window's first and last (161). None for `Uniform7`, which has
    /// no such form.
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
    let similarity = |c: usize| window.mean(&Plane::of(a, b, width, height, channels, c), Local::similarity);
    (0..channels).map(similarity).sum::<f64>() / channels as f64
}

/// SSIM over the windows whose middle lies in `mask` (`height x width`); what a window sees may lie outside of it. None
/// if there is no such window.
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
                sum += window.local(at(0), at(1), at(2), at(3)).similarity();
                count += 1;
            }
        });
    }
    (count > 0).then(|| sum / count as f64)
}

/// MS-SSIM of two images `height x width x channels`: contrast and structure at five scales, each half as large as the
/// one before (means of 2 x 2), luminance at the coarsest.
///
/// `Gaussian` leaves the border out at every scale and multiplies the scales for each channel, as pytorch-msssim does.
/// `Torchmetrics` does as that package: it takes means over all channels before it multiplies, and leaves the border
/// out of contrast and structure, but not of the coarsest scale's whole. Negative factors count as 0. None for images
/// with a side below [`Definition::least_multi_scale_side`], and for `Uniform7`, which has no multi-scale form.
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
            if last { whole.mean(plane, Local::similarity) } else { contrast.mean(plane, Local::contrast) }
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

/// What is seen through one window. Numerators and denominators, so that a score takes one division.
struct Local {
    /// Contrast and structure.
    contrast: [f64; 2],
    luminance: [f64; 2],
}

impl Local {
    /// Luminance, contrast and structure.
    #[inline(always)]
    fn similarity(&self) -> f64 {
        self.contrast[0] * self.luminance[0] / (self.contrast[1] * self.luminance[1])
    }

    /// Contrast and structure.
    #[inline(always)]
    fn contrast(&self) -> f64 {
        self.contrast[0] / self.contrast[1]
    }
}

/// The middle of the levels, which planes are around.
const MIDDLE: f32 = 127.5;

/// One channel of both images: levels less [`MIDDLE`].
struct Plane {
    a: Vec<f32>,
    b: Vec<f32>,
    width: usize,
    height: usize,
}

impl Plane {
    fn of(a: &[u8], b: &[u8], width: usize, height: usize, channels: usize, channel: usize) -> Plane {
        let plane = |image: &[u8]| -> Vec<f32> {
            image.chunks_exact(channels).map(|pixel| f32::from(pixel[channel]) - MIDDLE).collect()
        };
        Plane { a: plane(a), b: plane(b), width, height }
    }

    /// Half as large: means of 2 x 2 px. Of an odd side torchmetrics drops the last pixel; pytorch-msssim puts zeros
    /// around, and so takes the first pixel as half of a mean with 0.
    fn halved(&self, definition: Definition) -> Plane {
        let odd = |side: usize| if definition == Definition::Torchmetrics { 0 } else { side % 2 };
        let (dx, dy) = (odd(self.width), odd(self.height));
        let (width, height) = ((self.width + 2 * dx - 2) / 2 + 1, (self.height + 2 * dy - 2) / 2 + 1);
        let half = |plane: &[f32]| -> Vec<f32> {
            let at = |x: usize, y: usize| {
                let inside = x >= dx && y >= dy && x - dx < self.width && y - dy < self.height;
                // outside lies level 0
                if inside { plane[(y - dy) * self.width + x - dx] } else { -MIDDLE }
            };
            let mean = |x: usize, y: usize| at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1);
            (0..width * height).map(|i| mean(i % width * 2, i / width * 2) / 4.0).collect()
        };
        Plane { a: half(&self.a), b: half(&self.b), width, height }
    }
}

/// Sums run in so many lanes, so that they can be added side by side; the order is fixed.
const LANES: usize = 8;

/// Weights of a symmetric window, from the middle outwards.
enum Taps {
    Box([f64; 4]),
    Gaussian([f64; 6]),
}

impl Taps {
    fn radius(&self) -> usize {
        match self {
            Taps::Box(taps) => taps.len() - 1,
            Taps::Gaussian(taps) => taps.len() - 1,
        }
    }

    /// The weighted sum of lines, which `line` gives by their distance from the middle one.
    fn blend<'a>(&self, out: &mut [f64], line: impl Fn(i64) -> &'a [f64]) {
        match self {
            Taps::Box(taps) => blend(out, taps, line),
            Taps::Gaussian(taps) => blend(out, taps, line),
        }
    }
}

/// As [`Taps::blend`]. All lines in one pass: sums that stay in registers make up for numbers twice as wide.
fn blend<'a, const TAPS: usize>(out: &mut [f64], taps: &[f64; TAPS], line: impl Fn(i64) -> &'a [f64]) {
    let width = out.len();
    let before: [&[f64]; TAPS] = std::array::from_fn(|k| &line(-(k as i64))[..width]);
    let after: [&[f64]; TAPS] = std::array::from_fn(|k| &line(k as i64)[..width]);
    for x in 0..width {
        let mut sum = taps[0] * before[0][x];
        for k in 1..TAPS {
            sum += taps[k] * (before[k][x] + after[k][x]);
        }
        out[x] = sum;
    }
}

/// A separable, symmetric window and how it is used.
struct Window {
    taps: Taps,
    /// Pixels left out on each side.
    border: usize,
    /// From population to sample covariance.
    unbiased: f64,
}

impl Window {
    fn of(definition: Definition) -> Window {
        match definition {
            Definition::Torchmetrics => Window { taps: Taps::Gaussian(gaussian(1.5)), border: 0, unbiased: 1.0 },
            Definition::Gaussian => Window { taps: Taps::Gaussian(gaussian(1.5)), border: 5, unbiased: 1.0 },
            Definition::Uniform7 => Window { taps: Taps::Box([1.0 / 7.0; 4]), border: 3, unbiased: 49.0 / 48.0 },
        }
    }

    /// Mean of a score over the positions of the window.
    fn mean(&self, plane: &Plane, score: impl Fn(&Local) -> f64) -> f64 {
        let mut sum = 0.0;
        self.each_row(plane, |_, blurred| sum += self.row(blurred, plane.width, &score));
        let count = ((plane.width - 2 * self.border) * (plane.height - 2 * self.border)) as f64;
        sum / count
    }

    /// Calls `each` with every row of windows that counts: its number, and four planes of a row's width one after
    /// another, which are the means of both images, of the sum of their squares and of their product.
    fn each_row(&self, plane: &Plane, mut each: impl FnMut(usize, &[f64])) {
        let (width, height, radius) = (plane.width, plane.height, self.taps.radius());
        let size = 2 * radius + 1;
        // of a picture that is reflected at its ends each end has to be long enough for that
        let least = if self.border == 0 { radius + 1 } else { size };
        assert!(width.min(height) >= least, "an image of {width} x {height} px is smaller than the window");
        // the last rows, blurred across: means of both, mean of the sum of squares, mean of the product
        let mut rows = vec![vec![0f64; 4 * width]; size];
        let mut scratch = Scratch::new(width, radius);
        let mut blurred = vec![0f64; 4 * width];
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
            let middle = (step - radius) as i64;
            self.taps.blend(&mut blurred, |away| rows[(middle + away) as usize % size].as_slice());
            each((y - radius as i64) as usize, &blurred);
        }
    }

    /// Of one window, from the means of both images, of the sum of their squares and of their product.
    #[inline(always)]
    fn local(&self, ma: f64, mb: f64, squares: f64, product: f64) -> Local {
        const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
        const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
        // what rounding takes below 0 stays there: it is as much in the covariance, and next to nothing beside C2
        let variances = (squares - (ma * ma + mb * mb)) * self.unbiased;
        let covariance = (product - ma * mb) * self.unbiased;
        let (ua, ub) = (ma + f64::from(MIDDLE), mb + f64::from(MIDDLE));
        Local {
            contrast: [2.0 * covariance + C2, variances + C2],
            luminance: [2.0 * ua * ub + C1, ua * ua + ub * ub + C1],
        }
    }

    /// Sum of a score over a row of windows.
    fn row(&self, blurred: &[f64], width: usize, score: &impl Fn(&Local) -> f64) -> f64 {
        let part = |k: usize| blurred[k * width..][self.border..width - self.border].as_chunks::<LANES>();
        let (ma, mb, squares, products) = (part(0), part(1), part(2), part(3));
        let mut sums = [0f64; LANES];
        for (((ma, mb), squares), products) in ma.0.iter().zip(mb.0).zip(squares.0).zip(products.0) {
            for i in 0..LANES {
                sums[i] += score(&self.local(ma[i], mb[i], squares[i], products[i]));
            }
        }
        let rest = ma.1.iter().zip(mb.1).zip(squares.1).zip(products.1);
        let rest = rest.map(|(((ma, mb), squares), product)| score(&self.local(*ma, *mb, *squares, *product)));
        sums.into_iter().chain(rest).sum()
    }
}

/// A row of both images with its reflected ends, and what is blurred of it.
struct Scratch {
    padded: [Vec<f64>; 4],
    radius: usize,
}

impl Scratch {
    fn new(width: usize, radius: usize) -> Scratch {
        Scratch { padded: std::array::from_fn(|_| vec![0f64; width + 2 * radius]), radius }
    }

    /// Blurs a row across; `out` holds the four planes one after another.
    fn blur(&mut self, a: &[f32], b: &[f32], taps: &Taps, out: &mut [f64]) {
        let (width, radius) = (a.len(), self.radius);
        let [pa, pb, squares, products] = &mut self.padded;
        for (padded, row) in [(&mut *pa, a), (&mut *pb, b)] {
            padded[radius..radius + width].iter_mut().zip(row).for_each(|(padded, level)| *padded = f64::from(*level));
            for k in 1..=radius {
                padded[radius - k] = f64::from(row[reflect(-(k as i64), width)]);
                padded[radius + width + k - 1] = f64::from(row[reflect((width + k - 1) as i64, width)]);
            }
        }
        for (((square, product), a), b) in squares.iter_mut().zip(products.iter_mut()).zip(&*pa).zip(&*pb) {
            (*square, *product) = (a * a + b * b, a * b);
        }
        for (padded, out) in self.padded.iter().zip(out.chunks_exact_mut(width)) {
            taps.blend(out, |away| &padded[(radius as i64 + away) as usize..][..width]);
        }
    }
}

/// The right half of a Gaussian of 11 taps, from its middle.
fn gaussian(sigma: f64) -> [f64; 6] {
    let taps: [f64; 6] = std::array::from_fn(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp());
    let sum = taps[0] + 2.0 * taps[1..].iter().sum::<f64>();
    taps.map(|tap| tap / sum)
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

    const DEFINITIONS: [Definition; 3] = [Definition::Torchmetrics, Definition::Gaussian, Definition::Uniform7];

    #[test]
    fn flat_pictures_of_any_level_are_like_themselves() {
        for level in 0..=255u8 {
            let flat = [level; 13 * 12];
            for definition in DEFINITIONS {
                let whole = ssim(&flat, &flat, 13, 12, 1, definition);
                assert!((whole - 1.0).abs() < 1e-9, "{level} {definition:?}: {whole}");
                let masked = masked_ssim([&flat, &flat], [13, 12], 1, &[true; 13 * 12], definition).unwrap();
                assert!((masked - 1.0).abs() < 1e-9, "{level} {definition:?}: {masked}");
            }
        }
        let flat = vec![250u8; 176 * 176];
        for definition in [Definition::Torchmetrics, Definition::Gaussian] {
            let scales = ms_ssim(&flat, &flat, 176, 176, 1, definition).unwrap();
            assert!((scales - 1.0).abs() < 1e-9, "{definition:?}: {scales}");
        }
    }

    #[test]
    fn flat_pictures_differ_in_luminance_alone() {
        let (a, b, c1) = (2.0 / 255.0, 5.0 / 255.0, 1e-4);
        let closed = (2.0 * a * b + c1) / (a * a + b * b + c1);
        for definition in DEFINITIONS {
            let found = ssim(&[2; 12 * 12], &[5; 12 * 12], 12, 12, 1, definition);
            assert!((found - closed).abs() < 1e-7, "{definition:?}: {found}, not {closed}");
        }
    }

    /// Of one channel, as it is defined: each window's deviations from its own means.
    fn direct(a: &[u8], b: &[u8], [width, height]: [usize; 2], definition: Definition) -> f64 {
        let (radius, border, unbiased) = match definition {
            Definition::Torchmetrics => (5, 0, 1.0),
            Definition::Gaussian => (5, 5, 1.0),
            Definition::Uniform7 => (3, 3, 49.0 / 48.0),
        };
        let tap = |k: i64| if radius == 3 { 1.0 } else { (-0.5 * (k as f64 / 1.5).powi(2)).exp() };
        let window = |x: usize, y: usize| {
            let mut seen: Vec<[f64; 3]> = Vec::new();
            for dy in -radius..=radius {
                for dx in -radius..=radius {
                    let at = reflect(y as i64 + dy, height) * width + reflect(x as i64 + dx, width);
                    seen.push([tap(dx) * tap(dy), f64::from(a[at]) / 255.0, f64::from(b[at]) / 255.0]);
                }
            }
            let total = seen.iter().map(|s| s[0]).sum::<f64>();
            let mean = |of: &dyn Fn(&[f64; 3]) -> f64| seen.iter().map(|s| s[0] * of(s)).sum::<f64>() / total;
            let (ma, mb) = (mean(&|s| s[1]), mean(&|s| s[2]));
            let variances = unbiased * mean(&|s| (s[1] - ma).powi(2) + (s[2] - mb).powi(2));
            let covariance = unbiased * mean(&|s| (s[1] - ma) * (s[2] - mb));
            (2.0 * ma * mb + 1e-4) * (2.0 * covariance + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (variances + 9e-4))
        };
        let (columns, rows) = (border..width - border, border..height - border);
        let count = (columns.len() * rows.len()) as f64;
        rows.flat_map(|y| columns.clone().map(move |x| (x, y))).map(|(x, y)| window(x, y)).sum::<f64>() / count
    }

    #[test]
    fn levels_that_hardly_differ_are_told_apart_as_defined() {
        let level = |i: usize, of: u64| {
            let drawn = (i as u64 + 1 + (of << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((drawn ^ (drawn >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 63) as u8
        };
        let [a, b] = [0, 1].map(|of| (0..21 * 17).map(|i| level(i, of)).collect::<Vec<u8>>());
        assert!(a.contains(&0) && a.contains(&1) && a != b);
        for definition in DEFINITIONS {
            assert!((ssim(&a, &a, 21, 17, 1, definition) - 1.0).abs() < 1e-9);
            let (found, wanted) = (ssim(&a, &b, 21, 17, 1, definition), direct(&a, &b, [21, 17], definition));
            assert!((found - wanted).abs() < 1e-9, "{definition:?}: {found}, not {wanted}");
        }
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
