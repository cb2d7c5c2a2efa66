//! `image_grid`: the pictures of rows as one picture, laid out by the values of their columns.
//!
//! reads: image; participant?, identity?, sequence?, camera?, timestep?, split?, method?
//! writes: grid (RGB PNG)
//!
//! Rows that are equal in the columns named by `lines` share a line of the grid, those equal in the columns named by
//! `columns` stand below each other; both come in the order of their first rows. The values are written beside and
//! above. Knows nothing of what the pictures show.

use crate::common::drawing::{Anchor, WHITE, below, beside, plain, text, text_width};
use crate::common::lettering::lettered;
use crate::common::media::Image;
use anyhow::{Result, bail, ensure};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Columns whose values make a line.
    #[schemars(length(min = 1))]
    lines: Vec<String>,
    /// Columns whose values make a column.
    #[schemars(length(min = 1))]
    columns: Vec<String>,
    /// At most so many lines, spread evenly over what there is; 0 shows all.
    #[serde(default)]
    limit: usize,
    /// Width of each picture, px; 0 leaves them as they are, but that small ones are enlarged by a whole number, pixel
    /// by pixel, so that there is room for names.
    #[serde(default)]
    #[schemars(range(max = 16384))]
    width: usize,
}

/// Columns that can make lines and columns.
const LABELS: [(&str, Type); 7] = [
    ("participant", Type::I64),
    ("identity", Type::I64),
    ("sequence", Type::Str),
    ("camera", Type::Str),
    ("timestep", Type::I64),
    ("split", Type::Str),
    ("method", Type::Str),
];

/// Size of the text, of OpenCV's font; a line of it is [`LINE`] px high.
const SIZE: f64 = 8.5;
const LINE: usize = 16;
/// Narrower pictures are enlarged, px.
const NARROW: usize = 96;
/// White between pictures, and between groups of columns, px.
const SPACE: usize = 2;
const GAP: usize = 12;

fn def() -> StageDef {
    StageDef::new("image_grid", 2, Grain::Whole)
        .doc("Lays the pictures of rows out as a labelled grid, in one picture.")
        .reads([("image", Type::Blob)])
        .may_read(LABELS)
        .writes([("grid", Type::Blob)])
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    for (field, names) in [("lines", &params.lines), ("columns", &params.columns)] {
        if let Some(other) = names.iter().find(|name| LABELS.iter().all(|(label, _)| label != name)) {
            let known = LABELS.map(|(label, _)| label).join(", ");
            bail!(
                "`{field}` names the column `{other}`, expected one of {known}\nhint: `rename:` of a `select:` gives a column another name"
            );
        }
    }
    Ok(ImageGrid { params })
});

struct ImageGrid {
    params: Params,
}

/// Values of the columns that make a line or a column.
type Label = Vec<String>;

impl Stage for ImageGrid {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.grid(unit, cx)).collect()
    }
}

impl ImageGrid {
    fn grid(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (mut lines, mut columns): (Vec<Label>, Vec<Label>) = Default::default();
        let mut cells = std::collections::HashMap::new();
        for row in unit.rows() {
            let place = (
                at(&mut lines, label(&row, &self.params.lines)?),
                at(&mut columns, label(&row, &self.params.columns)?),
            );
            ensure!(
                cells.insert(place, row.path("image")?).is_none(),
                "two pictures are of {} and {}\nhint: name a column that tells them apart under `lines` or `columns`, or select one of them",
                lines[place.0].join(" "),
                columns[place.1].join(" ")
            );
        }
        ensure!(!lines.is_empty(), "there are no pictures to lay out");
        // what shares its first value stands together
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|&i| {
            (0..columns[i].len())
                .map(|n| columns.iter().position(|other| other[..=n] == columns[i][..=n]))
                .collect::<Vec<_>>()
        });

        let n = if self.params.limit == 0 { lines.len() } else { self.params.limit.min(lines.len()) };
        // the middles of n equal parts: neither always the first nor always the last
        let shown: Vec<usize> = (0..n).map(|i| (2 * i + 1) * lines.len() / (2 * n)).collect();
        let mut size = None;
        let mut pictures = Vec::new();
        for &line in &shown {
            let mut of_line = Vec::new();
            for &column in &order {
                let Some(path) = cells.get(&(line, column)) else {
                    of_line.push(None);
                    continue;
                };
                let picture = self.read(path)?;
                let first = *size.get_or_insert((picture.width, picture.height));
                ensure!(
                    first == (picture.width, picture.height),
                    "the picture of {} and {} is {} x {} px, another one {} x {}\nhint: pictures of one shape; `width` makes them one size",
                    lines[line].join(" "),
                    columns[column].join(" "),
                    picture.width,
                    picture.height,
                    first.0,
                    first.1
                );
                of_line.push(Some(picture));
            }
            pictures.push(of_line);
        }
        let (width, height) = size.unwrap_or((1, 1));
        let times = if self.params.width == 0 { NARROW.div_ceil(width.max(1)) } else { 1 };
        let (width, height) = (times * width, times * height);
        let above =
            |column: usize| columns[column].iter().zip(&self.params.columns).map(|(value, name)| called(name, value));
        let names: Vec<Label> = order.iter().map(|&column| above(column).collect()).collect();
        let said = |line: usize| lines[line].iter().zip(&self.params.lines).map(|(value, name)| called(name, value));
        let labels: Vec<String> = shown.iter().map(|&line| said(line).collect::<Vec<_>>().join(" ")).collect();
        let margin = labels
            .iter()
            .map(|label| text_width(label, SIZE))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .max()
            .unwrap_or(0)
            + 10;
        let mut all = vec![heading(&names, margin, width)?];
        for (label, of_line) in labels.iter().zip(pictures) {
            let mut side = plain(margin, height, WHITE);
            text(&mut side, label, (4, height / 2), SIZE, Anchor::Left)?;
            let mut line = vec![side];
            for (column, picture) in of_line.into_iter().enumerate() {
                line.push(plain(space(&names, column), height, WHITE));
                line.push(match picture {
                    Some(picture) => enlarged(picture, times),
                    None => missing(width, height)?,
                });
            }
            let line = beside(&line);
            all.push(plain(line.width, SPACE, WHITE));
            all.push(line);
        }
        let path = cx.file(unit, "grid.png");
        below(&all).write_png(&path)?;
        Ok(vec![OutRow::new().file("grid", &path)])
    }

    fn read(&self, path: &std::path::Path) -> Result<Image> {
        let image = Image::read(path, 3)?;
        let width = if self.params.width == 0 { image.width } else { self.params.width };
        image.resized(width, (image.height * width).div_ceil(image.width))
    }
}

/// Every pixel a block of so many on a side.
fn enlarged(image: Image, times: usize) -> Image {
    if times == 1 {
        return image;
    }
    let (width, height) = (image.width * times, image.height * times);
    let pixel = |i: usize| {
        let at = (i / width / times * image.width + i % width / times) * 3;
        [image.data[at], image.data[at + 1], image.data[at + 2]]
    };
    Image::new(width, height, 3, (0..width * height).flat_map(pixel).collect())
}

/// Where a label stands in a list, at whose end it is put if it is new.
fn at(labels: &mut Vec<Label>, label: Label) -> usize {
    labels.iter().position(|known| *known == label).unwrap_or_else(|| {
        labels.push(label);
        labels.len() - 1
    })
}

fn label(row: &Row<'_>, columns: &[String]) -> Result<Label> {
    let value = |name: &String| {
        if !row.has(name) {
            bail!(
                "a row has no value in the column `{name}`, which is to label it\nhint: `set:` of a `select:` gives it one"
            );
        }
        match LABELS.iter().find(|(label, _)| label == name) {
            Some((_, Type::I64)) => Ok(row.i64(name)?.to_string()),
            _ => Ok(row.str(name)?),
        }
    };
    columns.iter().map(value).collect()
}

/// A value as it is written: a number of which nobody would know what it counts, with a letter before it.
fn called(column: &str, value: &str) -> String {
    match column {
        "timestep" => format!("t {value}"),
        _ => value.into(),
    }
}

/// What is left white before a column: more where a group begins of those that share all values but the last.
fn space(names: &[Label], column: usize) -> usize {
    let group = |column: usize| &names[column][..names[column].len() - 1];
    match column {
        0 => 0,
        _ if group(column) == group(column - 1) => SPACE,
        _ => GAP,
    }
}

/// The values above the columns, all in one size: for each column that is named as many lines of text as its longest
/// value takes; a value that goes for several pictures is written once.
fn heading(names: &[Label], margin: usize, width: usize) -> Result<Image> {
    let levels = names.iter().map(Vec::len).max().unwrap_or(0);
    let lefts: Vec<usize> = (0..names.len())
        .scan(margin, |left, column| {
            let at = *left + space(names, column);
            *left = at + width;
            Some(at)
        })
        .collect();
    let right = lefts.last().map_or(margin, |left| left + width);
    // level and column of each value that is written, and the room it has
    let mut places: Vec<(usize, usize)> = Vec::new();
    let mut rooms: Vec<(&str, usize)> = Vec::new();
    for level in 0..levels {
        for column in 0..names.len() {
            let same = |other: usize| names[other][..=level] == names[column][..=level];
            let last_level = level + 1 == levels;
            if !last_level && column > 0 && same(column - 1) {
                continue;
            }
            let end = if last_level {
                column
            } else {
                (column..names.len()).take_while(|&other| same(other)).last().unwrap_or(column)
            };
            places.push((level, column));
            rooms.push((&names[column][level], (lefts[end] + width - lefts[column]).saturating_sub(6)));
        }
    }
    let found = lettered(&rooms, SIZE, &text_width)?;
    let mut high = vec![1; levels];
    for ((level, _), lines) in places.iter().zip(&found.lines) {
        high[*level] = lines.len().max(high[*level]);
    }
    let mut image = plain(right, high.iter().sum::<usize>() * LINE + 4, WHITE);
    for ((level, column), lines) in places.iter().zip(&found.lines) {
        // values of few lines stand right above what they name
        let first = high[..=*level].iter().sum::<usize>() - lines.len();
        for (k, line) in lines.iter().enumerate() {
            text(&mut image, line, (lefts[*column] + 3, (first + k + 1) * LINE - 4), found.size, Anchor::Left)?;
        }
    }
    Ok(image)
}

/// A place of the grid for which there is no row.
fn missing(width: usize, height: usize) -> Result<Image> {
    let mut image = plain(width, height, WHITE);
    text(&mut image, "none", (4, height / 2), SIZE, Anchor::Left)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_grow_by_blocks() {
        let image = Image::new(2, 1, 3, vec![1, 2, 3, 4, 5, 6]);
        let large = enlarged(image.clone(), 2);
        assert_eq!((large.width, large.height), (4, 2));
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(large.data, [row, row].concat());
        assert_eq!(enlarged(image, 1).width, 2);
    }
}
