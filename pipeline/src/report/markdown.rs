//! A report as Markdown, as GitHub and its like read it. Files are named relative to it. Knows no run.

use super::FILES;
use super::document::{Block, Cell, Document, Table};

/// The text of `report.md`.
pub(super) fn render(document: &Document) -> String {
    let mut out = format!("# {}\n\n{}\n\n", escape(&document.title), escape(&document.summary));
    for sentence in &document.trouble {
        out += &format!("> **{}**\n\n", escape(sentence));
    }
    for text in &document.warnings {
        out += &format!("> Warning: {}\n\n", with_code(text));
    }
    for (name, value) in &document.facts {
        out += &format!("- {}: {}\n", escape(name), escape(value));
    }
    out.push('\n');
    document.blocks.iter().for_each(|block| self::block(block, &mut out));
    out
}

fn block(block: &Block, out: &mut String) {
    match block {
        Block::Heading(level, text) => *out += &format!("{} {}\n\n", "#".repeat(usize::from(*level)), escape(text)),
        Block::Fold(title) => *out += &format!("### {}\n\n", escape(title)),
        Block::Unfold => {}
        Block::Prose(markdown) => *out += &format!("{}\n\n", markdown.trim_end()),
        Block::Notice(text) => *out += &format!("*{}*\n\n", with_code(text)),
        Block::Table(table) => *out += &self::table(table),
        Block::Pictures(media, note) => {
            for media in media {
                *out += &format!("![{}]({FILES}/{})\n", escape(&media.caption), media.name);
                *out += &format!("{}\n\n", escape(&media.caption));
            }
            self::note(note, out);
        }
        Block::Videos(media, note) => {
            for media in media {
                let text = if media.caption.is_empty() { &media.name } else { &media.caption };
                let why = media.only_named.as_ref().map_or(String::new(), |why| format!(" ({})", escape(why)));
                *out += &format!("- [{}]({FILES}/{}){why}\n", escape(text), media.name);
            }
            out.push('\n');
            self::note(note, out);
        }
        Block::Drawings(drawings, note) => {
            for drawing in drawings {
                *out += &format!("![{}]({FILES}/{})\n", escape(&drawing.alt), drawing.name);
            }
            out.push('\n');
            self::note(note, out);
        }
        Block::Listing(title, text) => {
            // a fence must be longer than any run of backticks within
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat((longest + 1).max(3));
            *out += &format!("### {}\n\n{fence}\n{}\n{fence}\n\n", escape(title), text.trim_end());
        }
    }
}

fn note(note: &Option<String>, out: &mut String) {
    if let Some(text) = note {
        *out += &format!("*{}*\n\n", with_code(text));
    }
}

/// A table and its note.
pub(super) fn table(table: &Table) -> String {
    let mut out = String::new();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    out += &line(table.head.iter().map(|head| escape(&head.text)).collect());
    out += &line(table.head.iter().map(|head| if head.number { "---:" } else { "---" }.to_string()).collect());
    table.rows.iter().for_each(|row| out += &line(row.iter().map(cell).collect()));
    out.push('\n');
    note(&table.note, &mut out);
    out
}

fn cell(cell: &Cell) -> String {
    let text = escape_within(&cell.text);
    let text = if (cell.best || cell.bad) && !text.is_empty() { format!("**{text}**") } else { text };
    let behind = cell.behind();
    if behind.is_empty() { text } else { format!("{text} {}", escape_within(&behind)) }
}

/// Our own sentences name columns and stages in backticks; what is between them is left alone.
fn with_code(text: &str) -> String {
    let quoted = text.matches('`').count().is_multiple_of(2);
    let part = |(i, part): (usize, &str)| if quoted && i % 2 == 1 { part.replace('|', "\\|") } else { escape(part) };
    let parts: Vec<String> = text.split('`').enumerate().map(part).collect();
    parts.join(if quoted { "`" } else { "\\`" })
}

/// Text with Markdown's special characters taken back, fit for headings, captions and paragraphs.
pub(super) fn escape(text: &str) -> String {
    let first = text.chars().next().filter(|c| "#>+-".contains(*c) && text.len() > 1);
    first.map_or(String::new(), |_| "\\".into()) + &escape_within(text)
}

/// The same for text that does not begin a line.
fn escape_within(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    for (i, &c) in chars.iter().enumerate() {
        let word = |at: Option<&char>| at.is_some_and(|c| c.is_alphanumeric());
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // within a word an underscore is only an underscore
            '_' if i > 0 && word(chars.get(i - 1)) && word(chars.get(i + 1)) => out.push(c),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("held_out *a*|b <i> _c_ [x](y)"), "held_out \\*a\\*\\|b &lt;i> \\_c\\_ \\[x\\](y)");
        assert_eq!((escape("+1 a"), escape_within("+1 a")), ("\\+1 a".into(), "+1 a".into()));
        assert_eq!(with_code("no column `a_*` in *b*"), "no column `a_*` in \\*b\\*");
        let mut out = String::new();
        block(&Block::Listing("r".into(), "a ```` b".into()), &mut out);
        assert!(out.contains("`````\na ```` b\n`````"), "{out}");
    }
}
