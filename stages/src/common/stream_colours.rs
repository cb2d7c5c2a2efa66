//! What the head of an H.264 or HEVC stream says of its colours: the VUI of its first sequence parameter set, as MP4
//! keeps it.
//!
//! Sources: ITU-T H.264, 7.3.2.1.1 and E.1.1; ITU-T H.265, 7.3.2.2, 7.3.3, 7.3.4, 7.3.7 and E.2.1; ISO/IEC 14496-15 for
//! `avcC` and `hvcC`. Knows no container beyond these two boxes, and decodes nothing. Streams may be damaged: then they
//! say nothing.

/// Colours by the numbers of ITU-T H.273; 2 is what is not told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// The transfer characteristics.
    pub transfer: u16,
    /// The matrix coefficients.
    pub matrix: u16,
    /// Black is at 0 and white at the largest number.
    pub full_range: bool,
}

/// Of a box `avcC`.
pub fn of_h264(configuration: &[u8]) -> Option<Told> {
    let (_, sets) = configuration.split_first_chunk::<5>()?;
    let (count, sets) = sets.split_first()?;
    let set = if count & 0x1f > 0 { sized(sets)? } else { return None };
    h264(&mut Bits::of(set.get(1..)?))
}

/// Of a box `hvcC`.
pub fn of_hevc(configuration: &[u8]) -> Option<Told> {
    let (arrays, mut rest) = configuration.get(22..)?.split_first()?;
    for _ in 0..*arrays {
        let (&[kind, a, b], mut units) = rest.split_first_chunk()?;
        for _ in 0..u16::from_be_bytes([a, b]) {
            let unit = sized(units)?;
            if kind & 0x3f == 33 {
                return hevc(&mut Bits::of(unit.get(2..)?));
            }
            units = &units[2 + unit.len()..];
        }
        rest = units;
    }
    None
}

/// Bytes behind their number.
fn sized(bytes: &[u8]) -> Option<&[u8]> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*size)))
}

/// Bits of a parameter set, from the front.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    /// Without the bytes that keep it from looking like the start of a unit.
    fn of(unit: &[u8]) -> Bits {
        let mut bytes: Vec<u8> = Vec::with_capacity(unit.len());
        let mut zeros = 0;
        for &byte in unit {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Bits { bytes, at: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// A number of so many bits, 32 at most.
    fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0u32, |number, _| Some(number << 1 | u32::from(self.flag()?)))
    }

    fn skip(&mut self, bits: usize) {
        self.at += bits;
    }

    /// An Exp-Golomb code; of signed numbers it is as long.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros < 32 { Some((1u32 << zeros) - 1 + self.number(zeros)?) } else { None }
    }

    fn golombs(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.golomb().map(|_| ()))
    }

    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 })
    }
}

/// Profiles of H.264 that tell how colour is sampled.
const HIGH: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

fn h264(bits: &mut Bits) -> Option<Told> {
    let profile = bits.number(8)?;
    bits.skip(16);
    bits.golomb()?;
    if HIGH.contains(&profile) {
        let chroma = bits.golomb()?;
        if chroma == 3 {
            bits.skip(1);
        }
        bits.golombs(2)?;
        bits.skip(1);
        if bits.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => bits.golombs(1)?,
        1 => {
            bits.skip(1);
            bits.golombs(2)?;
            let cycle = bits.golomb()?;
            bits.golombs(cycle)?;
        }
        _ => {}
    }
    bits.golomb()?;
    bits.skip(1);
    bits.golombs(2)?;
    if !bits.flag()? {
        bits.skip(1);
    }
    bits.skip(1);
    if bits.flag()? {
        bits.golombs(4)?;
    }
    vui(bits)
}

fn scaling_list(bits: &mut Bits, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.signed()? + 256).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn hevc(bits: &mut Bits) -> Option<Told> {
    bits.skip(4);
    let layers = bits.number(3)?;
    bits.skip(1 + 88 + 8);
    let mut present = Vec::new();
    for _ in 0..layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers as usize));
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 });
    }
    bits.golomb()?;
    if bits.golomb()? == 3 {
        bits.skip(1);
    }
    bits.golombs(2)?;
    if bits.flag()? {
        bits.golombs(4)?;
    }
    bits.golombs(2)?;
    let order = bits.golomb()?.min(12) + 4;
    let told = if bits.flag()? { layers + 1 } else { 1 };
    bits.golombs(3 * told)?;
    bits.golombs(6)?;
    if bits.flag()? && bits.flag()? {
        scaling_lists(bits)?;
    }
    bits.skip(2);
    if bits.flag()? {
        bits.skip(8);
        bits.golombs(2)?;
        bits.skip(1);
    }
    for set in 0..bits.golomb()? {
        // one that is told by how it differs from another: no encoder of cameras and phones is known to do that here
        if set > 0 && bits.flag()? {
            return None;
        }
        let pictures = bits.golomb()?.checked_add(bits.golomb()?)?;
        for _ in 0..pictures {
            bits.golomb()?;
            bits.flag()?;
        }
    }
    if bits.flag()? {
        for _ in 0..bits.golomb()? {
            bits.number(order)?;
            bits.flag()?;
        }
    }
    bits.skip(2);
    vui(bits)
}

fn scaling_lists(bits: &mut Bits) -> Option<()> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.golomb()?;
                continue;
            }
            if size > 1 {
                bits.golomb()?;
            }
            bits.golombs(64.min(1 << (4 + 2 * size)))?;
        }
    }
    Some(())
}

/// The beginning of what is for those who show it, which both have in common.
fn vui(bits: &mut Bits) -> Option<Told> {
    const OTHER_RATIO: u32 = 255;
    if !bits.flag()? {
        return None;
    }
    if bits.flag()? && bits.number(8)? == OTHER_RATIO {
        bits.skip(32);
    }
    if bits.flag()? {
        bits.skip(1);
    }
    if !bits.flag()? {
        return None;
    }
    bits.skip(3);
    let full_range = bits.flag()?;
    let [_, transfer, matrix] = if bits.flag()? { [bits.number(8)?, bits.number(8)?, bits.number(8)?] } else { [2; 3] };
    Some(Told { transfer: transfer as u16, matrix: matrix as u16, full_range })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boxes of films of a few frames, 128 x 64 px, that ffmpeg wrote with libx264 and libx265.
    const H264: &str =
        "0164000affe1001b6764000aacd94209a6e04040c80000030008000003019078912cb001000668ebe0572c8bfdf8f800";
    const H264_SILENT: &str =
        "0164000affe100176764000aacd94209a1000003000100000300320f12259601000668ebe0572c8bfdf8f800";
    const HEVC: &str = "0102200000009000000000001ef000fcfdfafa00000f02200001001840010c01ffff02200000030090000003000003001e959809\
         210001002c42010102200000030090000003000003001ea0102041365959a4932b9b810100820000030002000003003210";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn streams_tell_their_colours() {
        assert_eq!(of_h264(&bytes(H264)), Some(Told { transfer: 2, matrix: 6, full_range: true }));
        assert_eq!(of_h264(&bytes(H264_SILENT)), None);
        assert_eq!(of_hevc(&bytes(HEVC)), Some(Told { transfer: 2, matrix: 1, full_range: true }));
    }

    #[test]
    fn no_damaged_stream_stops_the_reader() {
        for (hex, of) in [(H264, of_h264 as fn(&[u8]) -> Option<Told>), (HEVC, of_hevc)] {
            let whole = bytes(hex);
            for length in 0..whole.len() {
                of(&whole[..length]);
            }
            for at in 0..8 * whole.len() {
                let mut other = whole.clone();
                other[at / 8] ^= 1 << (at % 8);
                of(&other);
            }
        }
        assert_eq!((of_h264(&[]), of_hevc(&[0; 23])), (None, None));
    }
}
