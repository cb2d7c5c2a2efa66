//! Sheets of pictures that compare renders with the truth: which views are on them, and how lines and columns are named.
//!
//! No stage, but what `contact_sheet` and `error_sheet` have in common. Knows no scores.

use crate::common::drawing::{Anchor, WHITE, plain, text, text_width};
use crate::common::media::Image;
use anyhow::Result;
use manifests::Type;
use protocol::Row;
use std::collections::{BTreeMap, BTreeSet};

/// Height of the strip above a line that says which view it is, px.
const LABEL: usize = 18;

/// Heights of capitals in headings and labels, px.
const CAPITALS: (f64, f64) = (10.0, 9.0);

/// The colour of a view that a method has not rendered.
pub const NO_RENDER: [u8; 3] = [230; 3];

/// Columns that tell views apart where there are several people, or crops of a frame.
pub const MAY_READ: [(&str, Type); 2] = [("participant", Type::I64), ("crop", Type::I64)];

/// What a sheet shows.
pub struct Views<'a> {
    /// What views are called and their rows, one of each method that has it, spread evenly over what there is.
    pub spread: Vec<(String, Vec<Row<'a>>)>,
    /// The methods, in the order in which they come.
    pub methods: Vec<String>,
}

/// At most `lines` of the rows' views.
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
        let [participant, crop] = MAY_READ.map(|(name, _)| row.has(name).then(|| row.i64(name)));
        let view = (row.str("sequence")?, row.str("camera")?, row.i64("timestep")?);
        views.entry((participant.transpose()?, view, crop.transpose()?)).or_default().push(row);
    }
    let several = |count: usize| count > 1;
    let people = several(views.keys().map(|(participant, ..)| participant).collect::<BTreeSet<_>>().len());
    let crops = several(views.keys().map(|(_, _, crop)| crop).collect::<BTreeSet<_>>().len());
    let named = |((participant, (sequence, camera, timestep), crop), rows)| {
        let of = |prefix: &str, number: Option<i64>| number.map_or(String::new(), |number| format!("{prefix}{number}"));
        let person = if people { of("", participant) + " / " } else { String::new() };
        let crop = if crops { of(" / crop ", crop) } else { String::new() };
        (format!("{person}{sequence} / {camera} / {timestep}{crop}"), rows)
    };
    let all = views.len();
    let n = lines.clamp(1, all.max(1)).min(all);
    // the middles of n equal parts: neither always the first frame nor always the last
    let shown: Vec<usize> = (0..n).map(|i| (2 * i + 1) * all / (2 * n)).collect();
    let spread =
        views.into_iter().enumerate().filter(|(i, _)| shown.contains(i)).map(|(_, view)| named(view)).collect();
    Ok(Views { spread, methods })
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

/// The strip above a sheet that names its columns, each `size` px wide. A name that is too long for its column is written smaller.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn heading(names: &[&str], size: usize) -> Result<Image> {
    let mut image = plain(size * names.len(), 22, WHITE);
    for (i, name) in names.iter().enumerate() {
        let room = size.saturating_sub(8) as f64 / text_width(name, CAPITALS.0)?.max(1) as f64;
        text(&mut image, name, (i * size + 4, 16), CAPITALS.0 * room.clamp(0.3, 1.0), Anchor::Left)?;
    }
    Ok(image)
}

/// The strip above a line that says which view it is.
///
/// # Errors
/// If a letter cannot be drawn.
pub fn label(view: &str, width: usize) -> Result<Image> {
    let mut name = plain(width, LABEL, WHITE);
    text(&mut name, view, (4, LABEL - 5), CAPITALS.1, Anchor::Left)?;
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
