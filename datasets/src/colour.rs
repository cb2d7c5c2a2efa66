//! Correction of a camera's colours: affine, or a polynomial in linear light.
//!
//! Works on bytes; knows no files and no cameras.

/// How many terms the polynomial may have (Cheung et al. 2004, Westland and Ripamonti 2004, as the `colour-science`
/// package numbers them).
pub const TERMS: [usize; 14] = [3, 4, 5, 7, 8, 10, 11, 14, 16, 17, 19, 20, 22, 35];

/// A correction of RGB pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum Correction {
    /// Row-major 3 x 4 on sRGB values in [0, 1]: `rgb @ m[:, :3] + m[:, 3]` (NeRSemble version 1, DiffusionAvatars).
    Affine([f64; 12]),
    /// Row-major 3 x N: sRGB is decoded, expanded to N terms, multiplied, encoded (NeRSemble version 2).
    Polynomial(Vec<f64>),
}

/// Exponents of red, green and blue in each term of the polynomial with `terms` terms, in the order of the matrix'
/// columns; `None` if there is no such polynomial.
fn exponents(terms: usize) -> Option<Vec<[u8; 3]>> {
    const LINEAR: [[u8; 3]; 3] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    const PRODUCTS: [[u8; 3]; 3] = [[1, 1, 0], [1, 0, 1], [0, 1, 1]];
    const SQUARES: [[u8; 3]; 3] = [[2, 0, 0], [0, 2, 0], [0, 0, 2]];
    const ALL: [[u8; 3]; 1] = [[1, 1, 1]];
    const ONE: [[u8; 3]; 1] = [[0, 0, 0]];
    const CUBES: [[u8; 3]; 3] = [[3, 0, 0], [0, 3, 0], [0, 0, 3]];
    // square times next, square times the one after
    const FORWARD: [[u8; 3]; 3] = [[2, 1, 0], [0, 2, 1], [1, 0, 2]];
    const BACKWARD: [[u8; 3]; 3] = [[2, 0, 1], [1, 2, 0], [0, 1, 2]];
    const CUBE_TIMES: [[u8; 3]; 6] = [[3, 1, 0], [3, 0, 1], [1, 3, 0], [0, 3, 1], [1, 0, 3], [0, 1, 3]];
    const SQUARE_TIMES_BOTH: [[u8; 3]; 3] = [[2, 1, 1], [1, 2, 1], [1, 1, 2]];
    const SQUARE_PAIRS: [[u8; 3]; 3] = [[2, 2, 0], [2, 0, 2], [0, 2, 2]];
    const FOURTH: [[u8; 3]; 3] = [[4, 0, 0], [0, 4, 0], [0, 0, 4]];
    let parts: &[&[[u8; 3]]] = match terms {
        3 => &[&LINEAR],
        4 => &[&LINEAR, &ONE],
        5 => &[&LINEAR, &ALL, &ONE],
        7 => &[&LINEAR, &PRODUCTS, &ONE],
        8 => &[&LINEAR, &PRODUCTS, &ALL, &ONE],
        10 => &[&LINEAR, &PRODUCTS, &SQUARES, &ONE],
        11 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &ONE],
        14 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &CUBES, &ONE],
        16 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &FORWARD, &CUBES],
        17 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &FORWARD, &CUBES, &ONE],
        19 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &FORWARD, &BACKWARD, &CUBES],
        20 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &FORWARD, &BACKWARD, &CUBES, &ONE],
        22 => &[&LINEAR, &PRODUCTS, &SQUARES, &ALL, &FORWARD, &BACKWARD, &CUBES, &SQUARE_TIMES_BOTH],
        35 => &[
            &LINEAR,
            &PRODUCTS,
            &SQUARES,
            &ALL,
            &FORWARD,
            &BACKWARD,
            &CUBES,
            &CUBE_TIMES,
            &SQUARE_TIMES_BOTH,
            &SQUARE_PAIRS,
            &FOURTH,
            &ONE,
        ],
        _ => return None,
    };
    Some(parts.concat())
}

/// sRGB in [0, 1] to linear light.
fn decode(x: f64) -> f64 {
    if x <= 0.040_45 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
}

impl Correction {
    /// Corrects RGB bytes in place. A trailing part of a pixel is left as it is.
    ///
    /// Results are cut to bytes and not rounded, as the published readers do (`nersemble_data/util/color_correction.py`
    /// for the polynomial; for the affine transform DiffusionAvatars' `load_image`, which multiplies by 255 and casts).
    /// A polynomial of another number of terms than [`TERMS`] changes nothing.
    pub fn apply(&self, rgb: &mut [u8]) {
        match self {
            Correction::Affine(m) => {
                for pixel in rgb.as_chunks_mut::<3>().0 {
                    let from = pixel.map(|c| f64::from(c) / 255.0);
                    for (c, sample) in pixel.iter_mut().enumerate() {
                        let value = from[0] * m[c] + from[1] * m[4 + c] + from[2] * m[8 + c] + m[4 * c + 3];
                        *sample = (value.clamp(0.0, 1.0) * 255.0) as u8;
                    }
                }
            }
            Correction::Polynomial(matrix) => {
                let terms = matrix.len() / 3;
                let Some(exponents) = exponents(terms) else { return };
                let linear: [f64; 256] = std::array::from_fn(|i| decode(i as f64 / 255.0));
                let mut expanded = vec![0.0; terms];
                for pixel in rgb.as_chunks_mut::<3>().0 {
                    let from = pixel.map(|c| linear[c as usize]);
                    let powers = from.map(|x| [1.0, x, x * x, x * x * x, x * x * x * x]);
                    for (term, e) in expanded.iter_mut().zip(&exponents) {
                        *term = powers[0][e[0] as usize] * powers[1][e[1] as usize] * powers[2][e[2] as usize];
                    }
                    for (sample, row) in pixel.iter_mut().zip(matrix.chunks_exact(terms)) {
                        let value: f64 = row.iter().zip(&expanded).map(|(m, x)| m * x).sum();
                        // the byte whose linear value is the last not above
                        *sample = linear.partition_point(|x| *x <= value).saturating_sub(1) as u8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_affine_correction_is_row_vector_times_matrix_plus_offset() {
        // red out = 0.5 green; green out = blue; blue out = red + 0.1
        let mut rgb = [51, 102, 204];
        Correction::Affine([0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.1]).apply(&mut rgb);
        // blue is 76.5: cut, not rounded
        assert_eq!(rgb, [51, 204, 76]);
        // 0.99 of 255 is 252.45, of 254 251.46, of 253 250.47; what leaves the range ends at its ends
        let mut rgb = [255, 254, 253, 0, 0, 0];
        Correction::Affine([0.99, 0.0, 0.0, 0.0, 0.0, 0.99, 0.0, 0.0, 0.0, 0.0, 0.99, 0.0]).apply(&mut rgb[..3]);
        Correction::Affine([1.0, 0.0, 0.0, 1.5, 0.0, 1.0, 0.0, -0.5, 0.0, 0.0, 1.0, 0.7]).apply(&mut rgb[3..]);
        // 0.7 of 255 is 178.5
        assert_eq!(rgb, [252, 251, 250, 255, 0, 178]);
        // the identity changes nothing
        let mut grey: Vec<u8> = (0..=255).flat_map(|x| [x; 3]).collect();
        let before = grey.clone();
        Correction::Affine([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]).apply(&mut grey);
        assert_eq!(grey, before);
    }

    #[test]
    fn every_polynomial_has_its_terms_and_no_other_exists() {
        for terms in TERMS {
            let list = exponents(terms).unwrap();
            assert_eq!(list.len(), terms);
            assert!(list.iter().enumerate().all(|(i, e)| !list[..i].contains(e)), "{terms} terms, one twice");
        }
        assert!((0..40).filter(|n| !TERMS.contains(n)).all(|n| exponents(n).is_none()));
    }

    #[test]
    fn a_polynomial_works_in_linear_light() {
        // the identity changes nothing, whatever the number of terms
        for terms in TERMS {
            let mut matrix = vec![0.0; 3 * terms];
            (0..3).for_each(|c| matrix[c * terms + c] = 1.0);
            let mut rgb: Vec<u8> = (0..=254).collect();
            let before = rgb.clone();
            Correction::Polynomial(matrix).apply(&mut rgb);
            assert_eq!(rgb, before, "{terms} terms");
        }
        // half of the light of 188 (0.5029 linear) is 0.2514: sRGB 0.5389 x 255 = 137.4, cut to 137
        let mut matrix = vec![0.0; 9];
        matrix[0] = 0.5;
        // green: 0.25 blue, by hand: 255 is 1.0 -> 0.25 -> sRGB 0.5371 -> 136.96, cut to 136
        matrix[3 + 2] = 0.25;
        // blue: -red, cut at 0
        matrix[6] = -1.0;
        let mut rgb = [188, 10, 255];
        Correction::Polynomial(matrix).apply(&mut rgb);
        assert_eq!(rgb, [137, 136, 0]);
        // product terms: column 3 of seven terms is red times green
        let mut matrix = vec![0.0; 21];
        matrix[3] = 1.0;
        // 0.2140 (127) x 1.0 (255)
        let mut rgb = [127, 255, 9];
        Correction::Polynomial(matrix).apply(&mut rgb);
        assert_eq!(rgb, [127, 0, 0]);
        // the constant lifts black: 0.5 -> sRGB 0.7354 -> 187.5
        let mut matrix = vec![0.0; 12];
        matrix[3] = 0.5;
        let mut rgb = [0, 0, 0];
        Correction::Polynomial(matrix).apply(&mut rgb);
        assert_eq!(rgb, [187, 0, 0]);
    }
}
