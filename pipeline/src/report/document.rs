//! What a report says, before it is Markdown or HTML: a title, facts, and blocks in reading order.
//!
//! Both renderings are made from this, so that they tell the same. Knows no run and no markup.

use super::numbers;
use std::path::PathBuf;

/// A whole report.
#[derive(Debug)]
pub(super) struct Document {
    /// Name of the recipe.
    pub title: String,
    /// What happened, in one sentence.
    pub summary: String,
    /// What went wrong, a sentence each; empty after a clean run.
    pub trouble: Vec<String>,
    /// What the run warned of, a sentence each.
    pub warnings: Vec<String>,
    /// Profile, time, machine, versions: name and value.
    pub facts: Vec<(String, String)>,
    /// Everything else, in reading order.
    pub blocks: Vec<Block>,
}

/// One thing on the page.
#[derive(Debug)]
pub(super) enum Block {
    /// A heading of a part (level 2) or of one table or figure (level 3), as Markdown has them; in HTML no level is
    /// left out.
    Heading(u8, String),
    /// Markdown written by the recipe's author.
    Prose(String),
    /// Something that was asked for and cannot be shown, and why.
    Notice(String),
    /// A table.
    Table(Table),
    /// Pictures side by side, and a line about them.
    Pictures(Vec<Media>, Option<String>),
    /// Videos side by side, and a line about them.
    Videos(Vec<Media>, Option<String>),
    /// Drawings side by side, and a line about them.
    Drawings(Vec<Drawing>, Option<String>),
    /// What follows is folded away under this title where the page can do that, up to [`Block::Unfold`].
    Fold(String),
    /// The end of what is folded away.
    Unfold,
    /// Text as it is, folded away where the page can do that: a title and the text.
    Listing(String, String),
}

/// A table whose cells are text already.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// One for each column.
    pub head: Vec<Head>,
    /// One cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// A line below the table.
    pub note: Option<String>,
    /// How many of the first columns say the same in all rows that are compared with each other: the best is the best
    /// of these.
    pub shared: usize,
}

impl Table {
    /// Adds to the line below.
    pub fn remark(&mut self, text: String) {
        self.note = Some(self.note.take().into_iter().chain([text]).collect::<Vec<_>>().join("; "));
    }
}

/// The head of a column.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Its text.
    pub text: String,
    /// Whether the column holds numbers, which are set flush right.
    pub number: bool,
    /// Whether the column holds digests and the like, which are set in a typewriter face.
    pub code: bool,
    /// For a column of means, what a file of numbers calls it; its text is for people.
    pub means: Option<String>,
    /// How far its numbers may be from those of a committed table.
    pub tolerance: f64,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cell {
    /// What it says.
    pub text: String,
    /// The spread of a mean, with its sign: `± 0.31`.
    pub spread: String,
    /// How many values it is the mean of, where that are not all of its rows: `(n = 11)`.
    pub count: String,
    /// The best of its column.
    pub best: bool,
    /// Nothing is known here, or nothing of interest.
    pub faint: bool,
    /// Something went wrong here.
    pub bad: bool,
    /// The number behind it, as it was computed.
    pub number: Option<Number>,
}

/// A number and what it is the mean of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    /// The number, or the mean.
    pub value: f64,
    /// The sample standard deviation of what it is the mean of, if there is any.
    pub deviation: Option<f64>,
    /// How many values it is the mean of.
    pub n: usize,
}

impl Cell {
    /// A plain cell.
    pub fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A cell that is not worth looking at.
    pub fn faint(text: impl Into<String>) -> Cell {
        Cell { faint: true, ..Cell::new(text) }
    }

    /// What stands behind the text where all of it is on one line.
    pub fn behind(&self) -> String {
        [self.spread.as_str(), self.count.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A duration given in seconds, which sorts as the number that it is.
    pub fn duration(seconds: f64) -> Cell {
        let known = seconds.is_finite() && seconds >= 0.0;
        let number = known.then_some(Number { value: seconds, deviation: None, n: 1 });
        Cell { number, ..Cell::new(numbers::duration(seconds)) }
    }
}

/// A picture or video on disk.
#[derive(Debug)]
pub(super) struct Media {
    /// Where it can be read.
    pub source: PathBuf,
    /// Its file name beside the Markdown.
    pub name: String,
    /// Its type for browsers.
    pub mime: &'static str,
    /// Width and height in px, if the file tells.
    pub size: Option<(u32, u32)>,
    /// Whole-number magnification on the page.
    pub zoom: u32,
    /// What is written below it.
    pub caption: String,
    /// Why the page cannot hold or play it, and only names the file; `None` if it can.
    pub only_named: Option<String>,
}

/// A drawing made here: SVG whose colours are `var(--NAME)` of the palette.
#[derive(Debug)]
pub(super) struct Drawing {
    /// Its file name beside the Markdown.
    pub name: String,
    /// The SVG element.
    pub svg: String,
    /// Natural width and height, px.
    pub size: (u32, u32),
    /// What it shows, in words.
    pub alt: String,
}
