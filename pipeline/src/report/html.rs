//! A report as one page that needs nothing else: style, pictures, videos and the one script that sorts tables are in
//! it. Knows no run.

use super::document::{Block, Document, Drawing, Media, Table};
use super::numbers;
use super::palette::{Color, PALETTE};
use super::prose;
use anyhow::Context;
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Width of the text column, px; wider drawings may use the whole window.
const COLUMN: u32 = 1040;
/// Room on a sheet of paper, px.
const PAPER: (u32, u32) = (680, 870);
/// Large pictures that stand below each other; of more nobody looks at each by itself.
const FEW: usize = 6;
/// More warnings than these are folded away.
const FEW_WARNINGS: usize = 4;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    document: &'a Document,
    palette: &'static [Color],
    contents: Vec<Entry>,
    parts: Vec<Part<'a>>,
}

/// A line of the contents.
struct Entry {
    id: String,
    text: String,
    /// Whether it lies within the part above it.
    inner: bool,
}

/// A block as the template wants it: what needs work is done.
enum Part<'a> {
    Heading {
        level: u8,
        text: &'a str,
        /// Whether it is that of one table or figure, which look alike wherever they stand.
        item: bool,
        /// Where links to it lead.
        id: String,
    },
    /// What follows is folded away, and left out on paper.
    Fold {
        title: &'a str,
        id: String,
    },
    Unfold,
    /// Made by us from the author's Markdown, already escaped.
    Prose(String),
    Notice(&'a str),
    Table(&'a Table),
    Listing {
        title: &'a str,
        text: &'a str,
        id: String,
    },
    Media {
        figures: Vec<Figure<'a>>,
        videos: bool,
        /// Whether there are so many that they are shown in two columns.
        pairs: bool,
        note: Option<&'a str>,
    },
    Drawings {
        drawings: &'a [Drawing],
        note: Option<&'a str>,
        wide: bool,
        /// Whether nobody could read it on paper.
        dense: bool,
    },
}

/// A picture or video and its bytes.
struct Figure<'a> {
    media: &'a Media,
    /// What it shows, for those who do not see it: its caption, or the heading that it stands under.
    label: String,
    /// As a `data:` address; empty if the page only names the file.
    data: String,
    /// Width and height on the page, px.
    size: Option<(u32, u32)>,
}

/// The text of `report.html`.
///
/// # Errors
/// If a picture or video cannot be read; the message names it.
pub(super) fn render(document: &Document) -> anyhow::Result<String> {
    let mut inner = false;
    let mut parts = Vec::with_capacity(document.blocks.len());
    let mut contents: Vec<Entry> = Vec::new();
    let mut heading = document.title.as_str();
    for block in &document.blocks {
        inner |= matches!(block, Block::Heading(2, _));
        if let Block::Heading(_, text) | Block::Listing(text, _) | Block::Fold(text) = block {
            heading = text;
            let inner = inner && !matches!(block, Block::Heading(2, _));
            contents.push(Entry { id: id(text, &contents), text: text.clone(), inner });
        }
        let id = contents.last().map_or("", |entry| &entry.id);
        parts.push(part(block, inner, (heading, id))?);
    }
    Ok(Page { document, palette: &PALETTE, contents, parts }.render()?)
}

/// A heading as the end of an address; headings of the same words are told apart by a number.
fn id(text: &str, taken: &[Entry]) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.map(str::to_lowercase).collect::<Vec<_>>().join("-");
    let name = if name.is_empty() { "part".into() } else { name };
    let free = |name: &String| name != "contents" && taken.iter().all(|entry| entry.id != *name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(free).expect("numbers do not end")
}

/// `inner`: whether it lies within a part. What the recipe asks for comes before all parts, right below the title of
/// the page. `heading`: the last one, and where links to it lead.
fn part<'a>(block: &'a Block, inner: bool, heading: (&str, &str)) -> anyhow::Result<Part<'a>> {
    Ok(match block {
        Block::Heading(level, text) => {
            Part::Heading { level: if inner { *level } else { 2 }, text, item: *level == 3, id: heading.1.into() }
        }
        Block::Fold(title) => Part::Fold { title, id: heading.1.into() },
        Block::Unfold => Part::Unfold,
        Block::Prose(markdown) => Part::Prose(prose::html(markdown)),
        Block::Notice(text) => Part::Notice(text),
        Block::Table(table) => Part::Table(table),
        Block::Listing(title, text) => Part::Listing { title, text, id: heading.1.into() },
        Block::Pictures(media, note) => {
            let figures = embedded(media, heading.0)?;
            let large = |figure: &Figure<'_>| figure.size.is_some_and(|(width, _)| width > COLUMN / 2);
            let pairs = figures.len() > FEW && figures.iter().any(large);
            Part::Media { figures, videos: false, pairs, note: note.as_deref() }
        }
        Block::Videos(media, note) => {
            Part::Media { figures: embedded(media, heading.0)?, videos: true, pairs: false, note: note.as_deref() }
        }
        Block::Drawings(drawings, note) => {
            let wide = drawings.iter().any(|drawing| drawing.size.0 > COLUMN);
            let scale = |(width, height): (u32, u32)| {
                f64::min(f64::from(PAPER.0) / f64::from(width), f64::from(PAPER.1) / f64::from(height))
            };
            let dense = drawings.iter().any(|drawing| scale(drawing.size) < 0.5);
            Part::Drawings { drawings, note: note.as_deref(), wide, dense }
        }
    })
}

fn embedded<'a>(all: &'a [Media], heading: &str) -> anyhow::Result<Vec<Figure<'a>>> {
    let figure = |(i, media): (usize, &'a Media)| {
        let Media { source, mime, size, zoom, only_named, .. } = media;
        let data = match only_named {
            Some(_) => String::new(),
            None => {
                let bytes =
                    std::fs::read(source).with_context(|| format!("reading {} for the report", source.display()))?;
                format!("data:{mime};base64,{}", STANDARD.encode(bytes))
            }
        };
        let label = match media.caption.as_str() {
            "" if all.len() > 1 => format!("{heading}, {} of {}", i + 1, all.len()),
            "" => heading.to_string(),
            caption => caption.to_string(),
        };
        Ok(Figure { media, label, data, size: size.map(|(width, height)| (width * zoom, height * zoom)) })
    };
    all.iter().enumerate().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_places_of_their_own() {
        let mut taken = Vec::new();
        for (text, expected) in [
            ("Scores: held-out & all", "scores-held-out-all"),
            ("Contents", "contents-2"),
            ("Training", "training"),
            ("Training", "training-2"),
            ("Größe <b>", "größe-b"),
            ("…", "part"),
        ] {
            let id = id(text, &taken);
            assert_eq!(id, expected);
            taken.push(Entry { id, text: text.into(), inner: false });
        }
    }
}
