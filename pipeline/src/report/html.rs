//! A report as one page that needs nothing else: style, pictures and videos are in it, and no script. Knows no run.

use super::document::{Block, Document, Drawing, Media, Table};
use super::palette::{Color, PALETTE};
use super::prose;
use anyhow::Context;
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Width of the text column, px; wider drawings may use the whole window.
const COLUMN: u32 = 1040;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    document: &'a Document,
    palette: &'static [Color],
    parts: Vec<Part<'a>>,
}

/// A block as the template wants it: what needs work is done.
enum Part<'a> {
    Heading {
        level: u8,
        text: &'a str,
        /// Whether it is that of one table or figure, which look alike wherever they stand.
        item: bool,
    },
    /// Made by us from the author's Markdown, already escaped.
    Prose(String),
    Notice(&'a str),
    Table(&'a Table),
    Listing {
        title: &'a str,
        text: &'a str,
    },
    Media {
        figures: Vec<Figure<'a>>,
        videos: bool,
        note: Option<&'a str>,
    },
    Drawings {
        drawings: &'a [Drawing],
        note: Option<&'a str>,
        wide: bool,
    },
}

/// A picture or video and its bytes.
struct Figure<'a> {
    media: &'a Media,
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
    for block in &document.blocks {
        inner |= matches!(block, Block::Heading(2, _));
        parts.push(part(block, inner)?);
    }
    Ok(Page { document, palette: &PALETTE, parts }.render()?)
}

/// `inner`: whether it lies within a part. What the recipe asks for comes before all parts, right below the title of the page.
fn part(block: &Block, inner: bool) -> anyhow::Result<Part<'_>> {
    Ok(match block {
        Block::Heading(level, text) => Part::Heading { level: if inner { *level } else { 2 }, text, item: *level == 3 },
        Block::Prose(markdown) => Part::Prose(prose::html(markdown)),
        Block::Notice(text) => Part::Notice(text),
        Block::Table(table) => Part::Table(table),
        Block::Listing(title, text) => Part::Listing { title, text },
        Block::Pictures(media, note) => Part::Media { figures: embedded(media)?, videos: false, note: note.as_deref() },
        Block::Videos(media, note) => Part::Media { figures: embedded(media)?, videos: true, note: note.as_deref() },
        Block::Drawings(drawings, note) => {
            let wide = drawings.iter().any(|drawing| drawing.size.0 > COLUMN);
            Part::Drawings { drawings, note: note.as_deref(), wide }
        }
    })
}

fn embedded<'a>(media: &'a [Media]) -> anyhow::Result<Vec<Figure<'a>>> {
    let figure = |media: &'a Media| {
        let Media { source, mime, size, zoom, only_named, .. } = media;
        let data = match only_named {
            Some(_) => String::new(),
            None => {
                let bytes =
                    std::fs::read(source).with_context(|| format!("reading {} for the report", source.display()))?;
                format!("data:{mime};base64,{}", STANDARD.encode(bytes))
            }
        };
        Ok(Figure { media, data, size: size.map(|(width, height)| (width * zoom, height * zoom)) })
    };
    media.iter().map(figure).collect()
}
