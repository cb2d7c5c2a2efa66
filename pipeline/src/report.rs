//! The report of a finished run: `report.md` with its pictures beside it, and one `report.html` that needs nothing
//! else.
//!
//! A pure function of [`FinishedRun`]. The run is first told as a `Document`, which both renderings share. What a
//! recipe asks for and the run cannot show is said on the page, with the reason: a report never fails for a missing
//! column. Knows neither recipes' syntax nor the cache.

pub mod committed;
mod curve;
mod curves;
mod document;
mod fold;
pub mod graph;
mod groups;
mod html;
mod layers;
mod markdown;
mod media;
mod numbers;
pub mod palette;
mod prose;
mod rates;
pub mod splice;
mod table;
#[cfg(test)]
mod tests;
pub mod writers;

use crate::finished::{FinishedNode, FinishedRun, NodeState, ReportItem, TableItem};
use crate::own_output::{FILES, MARK, MARKDOWN, PAGE};
use anyhow::Context;
use document::{Block, Cell, Document, Head, Table};
use manifests::Manifest;
use numbers::{counted, duration};
use std::fs;
use std::path::{Path, PathBuf};

/// Of more stages than these, their list and their graph are folded away.
const MANY: usize = 120;

/// The heading of a table of rates that has no other.
pub(crate) const RATES: &str = "Rates";

/// Where a report was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The Markdown; its pictures lie in `report_files` beside it.
    pub markdown: PathBuf,
    /// The page, complete in one file.
    pub html: PathBuf,
}

/// Whether all parts of a report are in the folder of its page.
pub fn is_whole(page: &Path) -> bool {
    page.exists() && page.with_extension("md").exists() && page.with_file_name(FILES).join(MARK).is_file()
}

/// Writes the report of a run into the folder `out`, which is made if it is not there.
///
/// Each file is written under another name first, so that an interrupted report leaves the older one whole.
///
/// # Errors
/// If a file cannot be read or written; the message names it.
pub fn write(run: &FinishedRun, out: &Path) -> anyhow::Result<Written> {
    let document = document(run)?;
    let html = html::render(&document)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    write_files(&document, out)?;
    let written = Written { markdown: out.join(MARKDOWN), html: out.join(PAGE) };
    replace(&written.markdown, markdown::render(&document).as_bytes())?;
    replace(&written.html, html.as_bytes())?;
    Ok(written)
}

fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes pictures, videos and drawings into a fresh folder, which then takes the place of the last report's.
fn write_files(document: &Document, out: &Path) -> anyhow::Result<()> {
    let (fresh, place) = (out.join(format!("{FILES}.tmp")), out.join(FILES));
    remove(&fresh)?;
    fill(document, &fresh).with_context(|| format!("cannot write the report's files to {}", fresh.display()))?;
    remove(&place)?;
    fs::rename(&fresh, &place).with_context(|| format!("cannot write {}", place.display()))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn fill(document: &Document, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(MARK), "")?;
    for block in &document.blocks {
        match block {
            Block::Pictures(media, _) | Block::Videos(media, _) => {
                media.iter().try_for_each(|media| fs::copy(&media.source, folder.join(&media.name)).map(drop))?;
            }
            Block::Drawings(drawings, _) => drawings
                .iter()
                .try_for_each(|drawing| fs::write(folder.join(&drawing.name), palette::standalone(&drawing.svg)))?,
            _ => {}
        }
    }
    Ok(())
}

/// The tables that a recipe's report has of rows, with their headings; a sentence for one that cannot be made. Of long
/// ones the beginning, unless `whole`.
///
/// # Errors
/// If polars fails, which a manifest cannot make it do.
pub fn tables(run: &FinishedRun, whole: bool) -> anyhow::Result<Vec<Result<writers::Titled, String>>> {
    let asked = run.report.iter().filter_map(|item| match item {
        ReportItem::Table(asked) => Some(asked),
        _ => None,
    });
    let one = |asked: &TableItem| {
        let title = asked.title.clone().unwrap_or_else(|| capital(&asked.stage));
        Ok(match rows(run, &asked.stage) {
            Err(why) => Err(format!("`{title}`: {why}")),
            Ok(manifest) => match table::table(manifest, asked, if whole { usize::MAX } else { table::SHOWN })? {
                Block::Table(table) => Ok(writers::Titled { title, table }),
                Block::Notice(why) => Err(format!("`{title}`: {why}")),
                other => unreachable!("a table is {other:?}"),
            },
        })
    };
    asked.map(one).collect()
}

/// The rows of a stage, or a notice that says why there are none.
fn rows<'a>(run: &'a FinishedRun, stage: &str) -> Result<&'a Manifest, String> {
    let node = run.nodes.iter().find(|node| node.name == stage);
    node.and_then(|node| node.manifest.as_ref()).ok_or_else(|| {
        let why = match node.map(|node| node.state) {
            None => "the recipe has no such stage",
            Some(NodeState::Failed) => "it failed",
            Some(NodeState::Skipped) if has_failed(run) => "something it needs failed",
            Some(NodeState::Skipped) => "it has not been run",
            Some(NodeState::Done) => "its rows are not there",
        };
        format!("not available: stage `{stage}`: {why}")
    })
}

/// Whether a stage of a run failed; else those that were skipped were not asked for.
fn has_failed(run: &FinishedRun) -> bool {
    run.nodes.iter().any(|node| node.state == NodeState::Failed)
}

/// Tells a run: what the recipe asks for first, then how it came about.
fn document(run: &FinishedRun) -> anyhow::Result<Document> {
    let mut blocks = Vec::new();
    for (i, item) in run.report.iter().enumerate() {
        // anchors of the files' names: two items may show the same column
        blocks.extend(self::item(run, item, &format!("{:02}", i + 1))?);
    }
    blocks.push(Block::Heading(2, "How it was made".into()));
    // a long list, and a drawing of as many boxes, are looked at by few who read what the recipe shows
    let many = run.nodes.len() > MANY;
    let mut add = |title: &str, block: Block, titled: bool| {
        let title = match many {
            true => Some(Block::Fold(title.into())),
            false => titled.then(|| Block::Heading(3, title.into())),
        };
        blocks.extend(title.into_iter().chain([block]).chain(many.then_some(Block::Unfold)));
    };
    if let Some((drawing, legend)) = graph::draw(&run.nodes) {
        add("Graph of the stages", Block::Drawings(vec![drawing], Some(legend)), false);
    }
    add("Stages", Block::Table(stages(&run.nodes)), true);
    if let Some(parameters) = parameters(run) {
        blocks.push(Block::Listing("Parameters".into(), parameters));
    }
    blocks.push(Block::Listing(format!("Recipe {}", run.file), run.text.clone()));
    let (title, warnings) = (run.recipe.clone(), run.warnings.clone());
    Ok(Document { title, summary: summary(run), trouble: trouble(run), warnings, facts: facts(run), blocks })
}

/// The blocks of one item of the recipe's `report:`.
fn item(run: &FinishedRun, item: &ReportItem, number: &str) -> anyhow::Result<Vec<Block>> {
    let (stage, title) = match item {
        // one whose text a parameter gives may have nothing to say
        ReportItem::Text { text } if text.trim().is_empty() => return Ok(Vec::new()),
        ReportItem::Text { text } => return Ok(vec![Block::Prose(text.clone())]),
        ReportItem::Rates { stages, title, count } => {
            let title = title.as_deref().unwrap_or(RATES);
            return Ok(vec![
                Block::Heading(3, title.into()),
                Block::Table(rates::rates(&run.nodes, stages, count.as_deref())),
            ]);
        }
        ReportItem::Table(TableItem { stage, title, .. })
        | ReportItem::Images { stage, title, .. }
        | ReportItem::Curve { stage, title, .. }
        | ReportItem::Videos { stage, title, .. } => (stage, title),
    };
    let mut blocks = vec![Block::Heading(3, title.clone().unwrap_or_else(|| capital(stage)))];
    let manifest = match rows(run, stage) {
        Ok(manifest) => manifest,
        Err(why) => {
            blocks.push(Block::Notice(why));
            return Ok(blocks);
        }
    };
    let prefix = |column: &str| format!("{number}-{}-{}", file_name(stage), file_name(column));
    blocks.extend(match item {
        ReportItem::Text { .. } | ReportItem::Rates { .. } => Vec::new(),
        ReportItem::Table(asked) => vec![table::table(manifest, asked, table::SHOWN)?],
        ReportItem::Images { column, caption, groups, limit, .. } => {
            let (kind, prefix) = (media::Kind::Picture, &prefix(column));
            media::media(run, manifest, &media::Asked { kind, column, caption, groups, limit: *limit, prefix })?
        }
        ReportItem::Videos { column, caption, groups, limit, .. } => {
            let (kind, prefix) = (media::Kind::Video, &prefix(column));
            media::media(run, manifest, &media::Asked { kind, column, caption, groups, limit: *limit, prefix })?
        }
        ReportItem::Curve { column, limit, .. } => curves::curves(run, manifest, (column, *limit), &prefix(column))?,
    });
    Ok(blocks)
}

/// A stage's name as a heading; of one that varies, that of all its variants.
fn capital(name: &str) -> String {
    let mut text = name.trim_end_matches("@*").replace('_', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

/// The table of stages.
fn stages(nodes: &[FinishedNode]) -> Table {
    let head = [
        ("stage", false),
        ("kind", false),
        ("version", true),
        ("works on", false),
        ("rows", true),
        ("ran", true),
        ("known", true),
        ("failed", true),
        ("time", true),
        ("key", false),
    ];
    let count = |n: usize| if n == 0 { Cell::faint("0") } else { Cell::new(n.to_string()) };
    // what was known took time once, and that is worth knowing
    let once = |node: &FinishedNode| {
        node.state != NodeState::Skipped && node.executed == 0 && node.seconds < 0.05 && node.worth >= 0.05
    };
    let row = |node: &FinishedNode| {
        let time = match (node.state, node.seconds) {
            (NodeState::Skipped, _) => Cell::faint("skipped"),
            _ if once(node) => {
                Cell { text: format!("once {}", duration(node.worth)), faint: true, ..Cell::duration(node.worth) }
            }
            (_, seconds) => Cell::duration(seconds),
        };
        vec![
            Cell::new(&node.name),
            Cell::new(&node.kind),
            Cell::faint(node.version.to_string()),
            Cell::new(&node.grain),
            node.manifest.as_ref().map_or(Cell::faint("–"), |manifest| count(manifest.len())),
            count(node.executed),
            count(node.cached),
            Cell { bad: node.failed > 0, ..count(node.failed) },
            time,
            Cell::faint(&node.key),
        ]
    };
    let mut note = "time: work in this run, summed over its tasks".to_string();
    if nodes.iter().any(once) {
        note += "; once: work in the run that made the rows";
    }
    Table {
        head: head
            .map(|(text, number)| Head { text: text.into(), number, code: text == "key", ..Head::default() })
            .into(),
        rows: nodes.iter().map(row).collect(),
        note: Some(note),
        ..Table::default()
    }
}

fn parameters(run: &FinishedRun) -> Option<String> {
    let mut text = String::new();
    let list = |params: &[(String, String)]| -> String {
        params.iter().map(|(name, value)| format!("  {name}: {value}\n")).collect()
    };
    if !run.params.is_empty() {
        text += &format!("params\n{}\n", list(&run.params));
    }
    for node in run.nodes.iter().filter(|node| !node.params.is_empty()) {
        text += &format!("{}\n{}\n", node.name, list(&node.params));
    }
    (!text.is_empty()).then(|| text.trim_end().to_string())
}

fn summary(run: &FinishedRun) -> String {
    let sum = |of: fn(&FinishedNode) -> usize| run.nodes.iter().map(of).sum::<usize>();
    let (ran, cached, failed) = (sum(|node| node.executed), sum(|node| node.cached), sum(|node| node.failed));
    let units = counted(ran + cached + failed, "unit");
    let stages = counted(run.nodes.len(), "stage");
    let ending = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{stages}, {units} of work: {ran} ran, {cached} known{ending}. {}.", duration(run.seconds))
}

fn trouble(run: &FinishedRun) -> Vec<String> {
    let sentence = |node: &FinishedNode| match node.state {
        NodeState::Failed => {
            let name = &node.name;
            Some(format!("Stage {name} failed: {} (effigy log {name} says why).", counted(node.failed, "unit")))
        }
        NodeState::Done if node.failed > 0 => {
            Some(format!("Stage {} goes on without {}, as it may.", node.name, counted(node.failed, "failed unit")))
        }
        NodeState::Done | NodeState::Skipped => None,
    };
    let mut sentences: Vec<String> = run.nodes.iter().filter_map(sentence).collect();
    let skipped = run.nodes.iter().filter(|node| node.state == NodeState::Skipped);
    let skipped: Vec<&str> = skipped.map(|node| node.name.as_str()).collect();
    if !skipped.is_empty() {
        let why = if has_failed(run) { "What these stages need is missing, so they did" } else { "These stages did" };
        sentences.push(format!("{why} not run: {}.", skipped.join(", ")));
    }
    sentences
}

fn facts(run: &FinishedRun) -> Vec<(String, String)> {
    let host = &run.host;
    let machine = [host.name.clone(), host.cpu.clone(), counted(host.threads, "thread")];
    let machine: Vec<String> = machine.into_iter().filter(|part| !part.is_empty()).collect();
    let mut software = vec![format!("effigy {}", host.version)];
    software.extend(host.software.iter().map(|(name, version)| format!("{name} {version}")));
    let mut facts = vec![
        ("Recipe", run.file.clone()),
        ("Profile", run.profile.clone().unwrap_or_else(|| crate::spec::DEFAULT_PROFILE.into())),
        ("Begun", numbers::moment(run.started)),
        ("Machine", machine.join(", ")),
        ("Software", software.join(", ")),
    ];
    if let Some(commit) = &host.commit {
        facts.push(("Commit", commit.clone()));
    }
    facts.push(("Workspace", run.workspace.display().to_string()));
    facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
