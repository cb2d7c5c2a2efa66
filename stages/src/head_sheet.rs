//! `head_sheet`: fitted heads to look at: on each line a person's scans and, beside them, how each method errs, from in front and from the side.
//!
//! reads: identity, truth_picture, picture; method?   writes: sheet (RGB PNG)
//!
//! Lines are spread evenly over what there is. Knows no scores.

use crate::contact_sheet::{below, beside, write};
use crate::evaluate_head_model::RED_MM;
use crate::media::Image;
use anyhow::Result;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Lines of the sheet.
    #[serde(default = "lines")]
    lines: usize,
}

fn lines() -> usize {
    4
}

fn def() -> StageDef {
    StageDef::new("head_sheet", 1, Grain::Whole)
        .doc("Scans and the errors of heads fitted to them in one picture.")
        .reads([("identity", Type::I64), ("truth_picture", Type::Blob), ("picture", Type::Blob)])
        .may_read([("method", Type::Str)])
        .writes([("sheet", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(HeadSheet { params }));

struct HeadSheet {
    params: Params,
}

impl Stage for HeadSheet {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sheet(unit, cx)).collect()
    }
}

impl HeadSheet {
    fn sheet(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let method = |row: &Row<'_>| if row.has("method") { row.str("method") } else { Ok("fitted".into()) };
        let mut people: BTreeMap<i64, Vec<Row<'_>>> = BTreeMap::new();
        let mut methods: Vec<String> = Vec::new();
        for row in unit.rows() {
            let name = method(&row)?;
            if !methods.contains(&name) {
                methods.push(name);
            }
            people.entry(row.i64("identity")?).or_default().push(row);
        }
        anyhow::ensure!(!people.is_empty(), "there are no fitted heads to show");
        let all: Vec<_> = people.into_iter().collect();
        let n = self.params.lines.clamp(1, all.len());
        let mut pictures = Vec::new();
        for i in 0..n {
            let (identity, rows) = &all[(2 * i + 1) * all.len() / (2 * n)];
            let truth = Image::read(&rows[0].path("truth_picture")?, 3)?;
            let blank = Image::new(truth.width, truth.height, 3, vec![230; truth.data.len()]);
            let mut line = vec![truth];
            for name in &methods {
                let mut shown = blank.clone();
                for row in rows {
                    if method(row)? == *name {
                        shown = Image::read(&row.path("picture")?, 3)?;
                    }
                }
                anyhow::ensure!(
                    (shown.width, shown.height) == (blank.width, blank.height),
                    "pictures of identity {identity} are of different sizes\nhint: the same `picture` for all methods"
                );
                line.push(shown);
            }
            let mut line = beside(&line);
            write(&mut line, &format!("{identity}"), (4, blank.height as i32 - 5), 0.35)?;
            if i == 0 {
                let mut heading = Image::new(line.width, 20, 3, vec![255; line.width * 60]);
                let names = ["scan".to_string()].into_iter().chain(methods.iter().map(|m| format!("{m}: blue 0, red {RED_MM} mm")));
                for (column, name) in names.enumerate() {
                    write(&mut heading, &name, ((column * blank.width) as i32 + 4, 14), 0.4)?;
                }
                pictures.push(heading);
            }
            anyhow::ensure!(line.width == pictures[0].width, "pictures are of different sizes\nhint: the same `picture` for all methods");
            pictures.push(line);
        }
        let path = cx.file(unit, "sheet.png");
        below(&pictures).write_png(&path)?;
        Ok(vec![OutRow::new().file("sheet", &path)])
    }
}
