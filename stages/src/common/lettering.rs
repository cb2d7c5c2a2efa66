//! Names above the columns of a picture: all of one size, broken into lines, and where a word is still too long without
//! its middle.
//!
//! Measures by what it is given, and draws nothing.

use anyhow::Result;

/// Names as they are to be written.
#[derive(Debug, PartialEq)]
pub struct Lettered {
    /// The size of all of them.
    pub size: f64,
    /// The lines of each.
    pub lines: Vec<Vec<String>>,
}

/// Sizes that are tried, as shares of the largest: smaller ones nobody could read.
const SHARES: [f64; 4] = [1.0, 0.93, 0.86, 0.8];

/// Lays out names, each in its room (px): in the largest size in which the parts of all of them fit, or else in the
/// smallest, in which those that do not are shortened. `width` measures a text in a size.
///
/// # Errors
/// If `width` fails.
pub fn lettered(names: &[(&str, usize)], size: f64, width: &dyn Fn(&str, f64) -> Result<usize>) -> Result<Lettered> {
    for size in SHARES.map(|share| share * size) {
        let mut fits = true;
        for (name, room) in names {
            for part in parts(name) {
                fits &= width(part.trim_end(), size)? <= *room;
            }
        }
        if fits {
            return broken(names, size, width);
        }
    }
    broken(names, SHARES[SHARES.len() - 1] * size, width)
}

/// Where a name may be broken: behind spaces and the signs that file names and variants are put together with.
fn parts(name: &str) -> Vec<&str> {
    name.split_inclusive([' ', '_', '-', '+', '/', '@', '=']).collect()
}

fn broken(names: &[(&str, usize)], size: f64, width: &dyn Fn(&str, f64) -> Result<usize>) -> Result<Lettered> {
    let mut lines = Vec::new();
    for (name, room) in names {
        let mut of_name: Vec<String> = Vec::new();
        for part in parts(name) {
            let longer = of_name.last().map(|line| format!("{line}{part}"));
            match longer {
                Some(longer) if width(longer.trim_end(), size)? <= *room => {
                    *of_name.last_mut().expect("there is one") = longer;
                }
                _ => of_name.push(shortened(part, *room, size, width)?),
            }
        }
        lines.push(of_name.into_iter().map(|line| line.trim_end().to_string()).collect());
    }
    Ok(Lettered { size, lines })
}

/// A text without as much of its middle as does not fit: what tells names apart stands at their ends.
///
/// # Errors
/// If `width` fails.
pub fn shortened(text: &str, room: usize, size: f64, width: &dyn Fn(&str, f64) -> Result<usize>) -> Result<String> {
    if width(text.trim_end(), size)? <= room {
        return Ok(text.into());
    }
    let letters: Vec<char> = text.trim_end().chars().collect();
    for kept in (2..letters.len()).rev() {
        let end = kept / 2;
        let (first, last) = (&letters[..kept - end], &letters[letters.len() - end..]);
        let short: String = first.iter().chain(&['.', '.']).chain(last).collect();
        if width(&short, size)? <= room {
            return Ok(short);
        }
    }
    Ok(letters.into_iter().take(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every letter as wide as the size.
    fn even(text: &str, size: f64) -> Result<usize> {
        Ok((text.chars().count() as f64 * size).ceil() as usize)
    }

    #[test]
    fn names_have_one_size_and_long_ones_more_lines() {
        let found = lettered(&[("truth", 100), ("auto-encoder alone", 100)], 10.0, &even).unwrap();
        assert_eq!(found.size, 10.0);
        assert_eq!(found.lines, [vec!["truth"], vec!["auto-", "encoder", "alone"]]);
    }

    #[test]
    fn all_grow_smaller_for_one_and_no_smaller_than_can_be_read() {
        let found = lettered(&[("truth", 80), ("expression", 86)], 10.0, &even).unwrap();
        assert!((found.size - 8.6).abs() < 1e-9 && found.lines == [["truth"], ["expression"]], "{found:?}");
        let found = lettered(&[("truth", 80), ("expression", 56)], 10.0, &even).unwrap();
        assert!((found.size - 8.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.lines, [["truth"], ["exp..on"]]);
    }

    #[test]
    fn the_middle_goes_and_the_ends_stay() {
        assert_eq!(shortened("seed=1 / view 12", 110, 10.0, &even).unwrap(), "seed=..w 12");
        assert_eq!(shortened("view", 110, 10.0, &even).unwrap(), "view");
        assert_eq!(shortened("view", 5, 10.0, &even).unwrap(), "v");
    }
}
