//! Which curves a report shows: those of the rows of a stage, one by itself or several laid over each other, with what
//! tells them apart.
//!
//! Reads the files and draws nothing.

use super::curve;
use super::document::Block;
use super::numbers::{self, counted};
use super::table::absent;
use crate::compare::Naming;
use crate::finished::FinishedRun;
use anyhow::Context;
use manifests::{Manifest, Type, Value};
use std::fs;

/// Curves of so many rows, unless a recipe says otherwise; nobody compares more by eye, and there are so many colours.
const CURVES: usize = curve::SERIES.len();

/// The curves of a column's files, and notices about those that cannot be shown.
///
/// # Errors
/// If a file that is there cannot be read, or drawing fails.
pub(super) fn curves(
    run: &FinishedRun,
    manifest: &Manifest,
    (column, limit): (&str, Option<usize>),
    prefix: &str,
) -> anyhow::Result<Vec<Block>> {
    match manifest.schema().ty(column) {
        None => return Ok(vec![Block::Notice(absent(manifest, column))]),
        Some(Type::Blob) => {}
        Some(ty) => return Ok(vec![Block::Notice(format!("not available: column `{column}` is {ty}, not blob"))]),
    }
    let naming = Naming::of(manifest);
    let (mut logs, mut notices) = (Vec::new(), Vec::new());
    let rows = manifest.len();
    let shown = rows.min(limit.unwrap_or(CURVES));
    for row in (0..shown).map(|i| i * rows / shown) {
        let Value::Blob(blob) = manifest.value(row, column)? else { continue };
        let Some(path) = (run.blob_path)(&blob) else {
            let digest = blob.digest.short();
            notices.push(format!("not available: the file of row {row}, {digest}, is no longer in the cache"));
            continue;
        };
        let text = fs::read(&path).with_context(|| format!("reading {} for the report", path.display()))?;
        match curve::read(&String::from_utf8_lossy(&text)) {
            Err(reason) => notices.push(format!("not available: the file of row {row}: {reason}")),
            Ok(log) => logs.push((row, log)),
        }
    }
    let mut blocks = Vec::new();
    // of more than there are colours, several drawings
    for some in logs.chunks(CURVES) {
        let name = |row| row_name(&naming, manifest, row);
        let named: Vec<_> =
            some.iter().map(|(row, log)| (name(*row).unwrap_or_else(|| format!("row {row}")), log)).collect();
        let noisy = some.iter().flat_map(|(_, log)| &log.terms).any(|(_, points)| curve::is_noisy(points));
        let mut notes = Vec::new();
        if let [(row, _)] = some {
            notes.extend(name(*row));
            notes.extend(noisy.then(|| "thin: every step; bold: moving average".to_string()));
        } else if noisy {
            notes.push("moving averages".to_string());
        }
        let dropped: usize = some.iter().map(|(_, log)| log.dropped).sum();
        if dropped > 0 {
            notes.push(format!("{} not drawn: text, NaN or infinite", counted(dropped, "value")));
        }
        // a panel that is not there is missed by nobody who does not know of it
        let drawn = |name: &String| some.iter().flat_map(|(_, log)| &log.terms).any(|(term, _)| term == name);
        let mut lost: Vec<&String> = some.iter().flat_map(|(_, log)| &log.lost).filter(|name| !drawn(name)).collect();
        lost.sort();
        lost.dedup();
        notes.extend(lost.iter().map(|name| format!("no curve of `{name}`, which holds no number")));
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        blocks.push(Block::Drawings(curve::draw(&named, &format!("{prefix}-{:02}", some[0].0 + 1))?, note));
    }
    blocks.extend(notices.into_iter().map(Block::Notice));
    if rows > shown {
        blocks.push(Block::Notice(format!("{shown} of {}, spread evenly", counted(rows, "row"))));
    }
    if blocks.is_empty() {
        blocks.push(Block::Notice(format!("not available: no row has a `{column}`")));
    }
    Ok(blocks)
}

/// What tells a row from the others; `None` if it is the only one.
fn row_name(naming: &Naming, manifest: &Manifest, row: usize) -> Option<String> {
    let parts: Vec<String> =
        naming.facts(manifest, row).map(|(name, value)| format!("{name} {}", numbers::value(&value))).collect();
    (manifest.len() > 1 && !parts.is_empty()).then(|| parts.join(" · "))
}
