//! Sheets of pictures that compare renders with the truth: which views are on them, and how lines and columns are
//! named.
//!
//! No stage, but what `contact_sheet` and `error_sheet` have in common. Knows no scores.

use crate::common::drawing::{Anchor, WHITE, plain, text, text_width};
use crate::common::lettering::{lettered, shortened};
use crate::common::media::Image;
use anyhow::Result;
use manifests::Type;
use protocol::Row;
use std::collections::{BTreeMap, BTreeSet};

/// Height of the strip above a line that says which view it is, px.
const LABEL: usize = 18;

/// From line to line of a heading, px.
const LINE: usize = 15;

/// Heights of capitals in headings and labels, px.
const CAPITALS: (f64, f64) = (10.0, 9.0);

/// The colour of a view that a method has not rendered.
pub const NO_RENDER: [u8; 3] = [230; 3];

/// Columns that tell views apart where there are several people, or crops of a frame, and what was held out of a view.
pub const MAY_READ: [(&str, Type); 3] = [("participant", Type::I64), ("crop", Type::I64), ("split", Type::Str)];

/// What a sheet shows.
pub struct Views<'a> {
    /// What views are called and their rows, one of each method that has it, spread evenly over what there is of each
    /// split.
    pub spread: Vec<(String, Vec<Row<'a>>)>,
    /// The methods, in the order in which they come.
    pub methods: Vec<String>,
}

/// At most `lines` of the rows' views, as many of each split as of the others: of views that are split there are few of
/// the one that scores are of, and evenly spread over all the sheet would have none.
///
/// # Errors
/// If a row does not say what it shows.
pub fn spread(rows: Vec<Row<'_>>, lines: usize) -> Result<Views<'_>> {
    let mut views: BTreeMap<_, Vec<Row<'_>>> = BTreeMap::new();
    let mut methods: Vec<String> = Vec::new();
    for row in rows {
        let method = method_of(&row)?;
        if !methods.contains(&method) {
            methods.push(method);
        }
        let [participant, crop] = ["participant", "crop"].map(|name| row.has(name).then(|| row.i64(name)));
        let split = row.has("split").then(|| row.str("split"));
        let view = (row.str("sequence")?, row.str("camera")?, row.i64("timestep")?);
        views.entry((split.transpose()?, participant.transpose()?, view, crop.transpose()?)).or_default().push(row);
    }
    let several = |count: usize| count > 1;
    let people = several(views.keys().map(|(_, participant, ..)| participant).collect::<BTreeSet<_>>().len());
    let crops = several(views.keys().map(|(.., crop)| crop).collect::<BTreeSet<_>>().len());
    let named = |(view, rows): (View, _)| {
        let (split, participant, (sequence, camera, timestep), crop) = view;
        let of = |prefix: &str, number: Option<i64>| number.map_or(String::new(), |number| format!("{prefix}{number}"));
        let person = if people { of("", participant) + " / " } else { String::new() };
        let crop = if crops { of(" / crop ", crop) } else { String::new() };
        let split = split.map_or(String::new(), |split| format!("{split}: "));
        (format!("{split}{person}{sequence} / {camera} / t {timestep}{crop}"), rows)
    };
    let mut sizes: Vec<usize> = Vec::new();
    let splits: Vec<&Option<String>> = views.keys().map(|(split, ..)| split).collect();
    splits.chunk_by(|a, b| a == b).for_each(|of_split| sizes.push(of_split.len()));
    let shown = middles(&sizes, lines.max(1));
    let spread =
        views.into_iter().enumerate().filter(|(i, _)| shown.contains(i)).map(|(_, view)| named(view)).collect();
    Ok(Views { spread, methods })
}

/// What tells a view from others: split, person, sequence, camera and moment, crop.
type View = (Option<String>, Option<i64>, (String, String, i64), Option<i64>);

/// Which of all views are shown, of splits that have so many and lie one behind the other: lines are dealt out in turn
/// to splits that have views left.
fn middles(sizes: &[usize], lines: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    let mut left = lines.min(sizes.iter().sum());
    while left > 0 {
        for (share, size) in shares.iter_mut().zip(sizes) {
            if left > 0 && *share < *size {
                *share += 1;
                left -= 1;
            }
        }
    }
    let begins = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end - size)
    });
    // the middles of n equal parts: neither always the first frame nor always the last
    let of_split = |((begin, size), n): ((usize, &usize), &usize)| {
        let (size, n) = (*size, *n);
        (0..n).map(move |i| begin + (2 * i + 1) * size / (2 * n))
    };
    begins.zip(sizes).zip(&shares).flat_map(of_split).collect()
}

/// Whose render a row holds.
fn method_of(row: &Row<'_>) -> Result<String> {
    if row.has("method") { row.str("method") } else { Ok("render".into()) }
}

/// What a method made of the view of these rows; none if it has not rendered it.
///
/// # Errors
/// If the picture cannot be read.
pub fn render_of(rows: &[Row<'_>], method: &str) -> Result<Option<Image>> {
    for row in rows {
        if method_of(row)? == method {
            return Image::read(&row.path("render")?, 3).map(Some);
        }
    }
    Ok(None)
}

/// The strip above a sheet that names its columns, each `size` px wide. All names are written in one size; long ones
/// take more lines.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn heading(names: &[&str], size: usize) -> Result<Image> {
    let rooms: Vec<(&str, usize)> = names.iter().map(|name| (*name, size.saturating_sub(8))).collect();
    let found = lettered(&rooms, CAPITALS.0, &text_width)?;
    let high = found.lines.iter().map(Vec::len).max().unwrap_or(1);
    let mut image = plain(size * names.len(), 22 + (high - 1) * LINE, WHITE);
    for (i, lines) in found.lines.iter().enumerate() {
        for (k, line) in lines.iter().enumerate() {
            // names of few lines stand right above their pictures
            let baseline = 16 + (high - lines.len() + k) * LINE;
            text(&mut image, line, (i * size + 4, baseline), found.size, Anchor::Left)?;
        }
    }
    Ok(image)
}

/// The strip above a line that says which view it is.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn label(view: &str, width: usize) -> Result<Image> {
    let mut name = plain(width, LABEL, WHITE);
    let view = shortened(view, width.saturating_sub(8), CAPITALS.1, &text_width)?;
    text(&mut name, &view, (4, LABEL - 5), CAPITALS.1, Anchor::Left)?;
    Ok(name)
}

/// Every pixel a block, so that one sees what there is and not what a filter makes of it.
pub fn enlarge(image: &Image, size: usize) -> Image {
    let data = (0..size * size)
        .flat_map(|i| {
            let (x, y) = (i % size * image.width / size, i / size * image.height / size);
            let at = (y * image.width + x) * 3;
            [image.data[at], image.data[at + 1], image.data[at + 2]]
        })
        .collect();
    Image::new(size, size, 3, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_has_its_lines_and_a_small_one_leaves_its_own_to_others() {
        // 100 views without splits are spread as they were
        assert_eq!(middles(&[100], 4), [12, 37, 62, 87]);
        assert_eq!(middles(&[4, 60, 40], 6), [1, 3, 4 + 15, 4 + 45, 64 + 10, 64 + 30]);
        assert_eq!(middles(&[1, 60], 6).len(), 6);
        assert_eq!(middles(&[2, 2], 9), [0, 1, 2, 3]);
        assert_eq!(middles(&[5, 5, 5], 1), [2]);
        assert!(middles(&[], 3).is_empty());
    }
}
