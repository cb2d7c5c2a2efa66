//! Peak signal-to-noise ratio, and the errors it is made of. Knows no windows and no networks.

/// Mean squared error of two images of equal size, values in [0, 1].
///
/// # Panics
/// If they are of different sizes or empty.
pub fn mse(a: &[u8], b: &[u8]) -> f64 {
    assert!(a.len() == b.len() && !a.is_empty(), "images of {} and {} samples", a.len(), b.len());
    // 2^15 squares below 2^16 fit into 32 bits, which add up faster than 64
    let sums = a.chunks(1 << 15).zip(b.chunks(1 << 15)).map(|(a, b)| {
        let square = |(&a, &b): (&u8, &u8)| (i32::from(a) - i32::from(b)).pow(2) as u32;
        u64::from(a.iter().zip(b).map(square).sum::<u32>())
    });
    sums.sum::<u64>() as f64 / (255.0 * 255.0 * a.len() as f64)
}

/// Mean squared error over the pixels of `mask`, each of `channels` samples; none if the mask is empty.
///
/// # Panics
/// If the sizes do not fit each other.
pub fn masked_mse(a: &[u8], b: &[u8], channels: usize, mask: &[bool]) -> Option<f64> {
    assert!(a.len() == b.len() && a.len() == mask.len() * channels, "a mask of {} pixels", mask.len());
    let pairs = || a.chunks_exact(channels).zip(b.chunks_exact(channels)).zip(mask).filter(|(_, inside)| **inside);
    let count = pairs().count() * channels;
    let sum: f64 = pairs().map(|((a, b), _)| sum_of_squares(a.iter().zip(b))).sum();
    (count > 0).then(|| sum / count as f64)
}

fn sum_of_squares<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> f64 {
    // exact in integers; divided once
    let sum: u64 = pairs.map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    sum as f64 / (255.0 * 255.0)
}

/// PSNR in dB of a mean squared error of values in [0, 1]; infinite for 0.
pub fn psnr(mse: f64) -> f64 {
    -10.0 * mse.log10()
}

/// Mean of PSNRs in dB. Infinite ones, of frames without any error, would leave nothing to be seen of the others and
/// are left out; it is infinite if all are. None without any.
pub fn mean_psnr(values: &[f64]) -> Option<f64> {
    let imperfect: Vec<f64> = values.iter().copied().filter(|value| *value != f64::INFINITY).collect();
    let counted = if imperfect.is_empty() { values } else { &imperfect };
    (!counted.is_empty()).then(|| counted.iter().sum::<f64>() / counted.len() as f64)
}

/// PSNR in dB of a sequence whose frames have these mean squared errors, in order: that of the error pooled over each
/// `chunk` of frames, averaged over the chunks (see [`mean_psnr`]); the last one may be shorter. DiffusionAvatars'
/// evaluator does so with 16. It is below the mean of the frames' own PSNR wherever frames differ. None without frames.
pub fn pooled_psnr(mses: &[f64], chunk: usize) -> Option<f64> {
    let pooled = |chunk: &[f64]| psnr(chunk.iter().sum::<f64>() / chunk.len() as f64);
    mean_psnr(&mses.chunks(chunk.max(1)).map(pooled).collect::<Vec<f64>>())
}

/// Mean absolute difference of two images of equal size, values in [0, 1].
///
/// # Panics
/// If they are of different sizes or empty.
pub fn l1(a: &[u8], b: &[u8]) -> f64 {
    assert!(a.len() == b.len() && !a.is_empty(), "images of {} and {} samples", a.len(), b.len());
    let sum: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / (255.0 * a.len() as f64)
}

/// Mean absolute difference over the pixels of `mask`, each of `channels` samples; none if the mask is empty.
///
/// # Panics
/// If the sizes do not fit each other.
pub fn masked_l1(a: &[u8], b: &[u8], channels: usize, mask: &[bool]) -> Option<f64> {
    assert!(a.len() == b.len() && a.len() == mask.len() * channels, "a mask of {} pixels", mask.len());
    let pairs = a.chunks_exact(channels).zip(b.chunks_exact(channels)).zip(mask).filter(|(_, inside)| **inside);
    let (sum, count) = pairs.fold((0u64, 0usize), |(sum, count), ((a, b), _)| {
        let of = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum::<u64>();
        (sum + of, count + channels)
    });
    (count > 0).then(|| sum as f64 / (255.0 * count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_pooled_before_the_logarithm() {
        // 20 dB and 10 dB in one chunk: the mean error is 0.055
        let pooled = pooled_psnr(&[0.01, 0.1, 0.001], 2).unwrap();
        assert!((pooled - (psnr(0.055) + 30.0) / 2.0).abs() < 1e-12);
        assert!(pooled_psnr(&[0.01, 0.1], 16).unwrap() < 15.0);
        assert_eq!(pooled_psnr(&[], 16), None);
        assert!((l1(&[51, 0, 0, 0], &[0; 4]) - 0.05).abs() < 1e-12);
        assert!((masked_l1(&[51, 0, 0, 0], &[0; 4], 2, &[true, false]).unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(masked_l1(&[51, 0], &[0; 2], 2, &[false]), None);
    }

    #[test]
    fn what_has_no_error_does_not_hide_the_others() {
        assert_eq!(mean_psnr(&[20.0, f64::INFINITY, 30.0]), Some(25.0));
        assert_eq!(mean_psnr(&[f64::INFINITY; 2]), Some(f64::INFINITY));
        assert_eq!(mean_psnr(&[]), None);
        assert!(mean_psnr(&[20.0, f64::NAN]).unwrap().is_nan());
        // a chunk of two without an error, and one of two that are pooled to 20 dB
        assert!((pooled_psnr(&[0.0, 0.0, 0.02, 0.0], 2).unwrap() - 20.0).abs() < 1e-12);
        assert_eq!(pooled_psnr(&[0.0; 3], 2), Some(f64::INFINITY));
    }

    #[test]
    fn twenty_decibel_is_a_tenth() {
        // an error of 51 / 255 = 0.2 in one sample of four
        let mse = mse(&[51, 0, 0, 0], &[0; 4]);
        assert!((mse - 0.01).abs() < 1e-12 && (psnr(mse) - 20.0).abs() < 1e-9);
        assert_eq!(psnr(0.0), f64::INFINITY);
    }

    #[test]
    fn a_mask_chooses_pixels() {
        let (a, b) = ([255, 255, 0, 0], [0, 0, 0, 0]);
        assert_eq!(masked_mse(&a, &b, 2, &[false, true]), Some(0.0));
        assert_eq!(masked_mse(&a, &b, 2, &[true, false]), Some(1.0));
        assert_eq!(masked_mse(&a, &b, 2, &[false, false]), None);
    }
}
