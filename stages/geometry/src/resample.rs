//! Squares of a rendered G-buffer, resampled, as the reference's training data has them.
//!
//! Source: DiffusionAvatars, specification section 2.4: values bilinearly, half-pixel centres, no filter when smaller;
//! the mask by the nearest pixel. Along silhouettes values of the surface mix with those of the background, which
//! rasterising at the square itself does not do. Knows no files and no rule of where a square lies.

use crate::gbuffer::GBuffer;

/// The square with corner (`x0`, `y0`) and side `side`, in pixels of the buffer, at `out` x `out` pixels. Nothing
/// outside of the square is looked at; where it reaches beyond the buffer, the buffer's edge is repeated.
pub fn crop_resized(buffer: &GBuffer, x0: f64, y0: f64, side: f64, out: u32) -> GBuffer {
    let (width, height) = (buffer.width as usize, buffer.height as usize);
    let columns = taps(x0, side, out, width);
    let rows = taps(y0, side, out, height);
    let mut small = GBuffer { width: out, height: out, ..GBuffer::default() };
    for row in &rows {
        for column in &columns {
            let places = [(row.0, column.0), (row.0, column.1), (row.1, column.0), (row.1, column.1)];
            let at = places.map(|(y, x)| y * width + x);
            let (v, u) = (row.2, column.2);
            let weights = [(1.0 - v) * (1.0 - u), (1.0 - v) * u, v * (1.0 - u), v * u];
            small.depth.push(mix(&at, &weights, |i| [buffer.depth[i]])[0]);
            small.uv.push(mix(&at, &weights, |i| buffer.uv[i]));
            small.normals.push(mix(&at, &weights, |i| buffer.normals[i]));
            small.ambient.push(mix(&at, &weights, |i| buffer.ambient[i]));
            small.mask.push(buffer.mask[row.3 * width + column.3]);
        }
    }
    small
}

/// For each output pixel of an axis: the two pixels it lies between, the weight of the second, and the nearest one.
fn taps(start: f64, side: f64, out: u32, length: usize) -> Vec<(usize, usize, f32, usize)> {
    let scale = side / f64::from(out);
    let pixel = |position: f64| position.clamp(0.0, length as f64 - 1.0) as usize;
    let tap = |i: u32| {
        let inside = (f64::from(i) + 0.5) * scale;
        let position = start + (inside - 0.5).clamp(0.0, (side - 1.0).max(0.0));
        let low = position.floor();
        // a square that begins between two pixels ends there, too
        let high = (low + 1.0).min((start + side - 1.0).ceil().max(low));
        (pixel(low), pixel(high), (position - low) as f32, pixel((start + inside).floor()))
    };
    (0..out).map(tap).collect()
}

fn mix<const N: usize>(at: &[usize; 4], weights: &[f32; 4], value: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut sum = [0.0; N];
    for (i, weight) in at.iter().zip(weights) {
        sum.iter_mut().zip(value(*i)).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32, height: u32) -> GBuffer {
        let n = (width * height) as usize;
        let of = |i: usize| (i % width as usize) as f32 + 10.0 * (i / width as usize) as f32;
        GBuffer {
            width,
            height,
            depth: (0..n).map(of).collect(),
            uv: (0..n).map(|i| [of(i), 0.5, 1.0]).collect(),
            normals: vec![[0.0, 0.0, 1.0]; n],
            ambient: vec![[0.25, 0.75]; n],
            mask: (0..n).map(|i| i % width as usize >= 2).collect(),
        }
    }

    #[test]
    fn a_square_of_the_same_size_is_cut_out() {
        let cut = crop_resized(&ramp(5, 4), 1.0, 1.0, 3.0, 3);
        assert_eq!(cut.depth, [11.0, 12.0, 13.0, 21.0, 22.0, 23.0, 31.0, 32.0, 33.0]);
        assert_eq!(cut.mask[..3], [false, true, true]);
        assert_eq!((cut.normals[0], cut.ambient[8]), ([0.0, 0.0, 1.0], [0.25, 0.75]));
    }

    #[test]
    fn smaller_and_larger_squares_have_half_pixel_centres() {
        // two of four pixels: between the first two, between the last two
        let small = crop_resized(&ramp(6, 6), 1.0, 1.0, 4.0, 2);
        assert_eq!(small.depth, [16.5, 18.5, 36.5, 38.5]);
        assert_eq!(small.uv[3], [38.5, 0.5, 1.0]);
        // four of two pixels: the edge of the square is repeated, not what lies beyond it
        let large = crop_resized(&ramp(6, 6), 2.0, 0.0, 2.0, 4);
        assert_eq!(large.depth[..4], [2.0, 2.25, 2.75, 3.0]);
        assert_eq!(large.depth[12..], [12.0, 12.25, 12.75, 13.0]);
        // at the buffer's edge
        assert_eq!(crop_resized(&ramp(4, 4), 2.0, 2.0, 3.0, 3).depth[8], 33.0);
    }
}
