//! The stages of a run as a drawing: boxes from left to right, what maps over what, what ran and what was known.
//!
//! Knows nothing of how places are found (`layers`, `fold`) nor of the page.

use super::document::Drawing;
use super::fold::{self, Piece};
use super::layers::{self, Graph, NODE};
use super::numbers::{counted, duration};
use super::prose::escape;
use crate::finished::{FinishedNode, NodeState};
use std::collections::{HashMap, HashSet};

/// Free space around the drawing, px.
const MARGIN: f64 = 4.0;
/// The page's width, px: wider graphs are folded.
const PAGE: f64 = 1036.0;
/// Letters of a name that fit into a box; the rest is in its tooltip.
const NAME: usize = 30;
/// Sizes of the two lines of a box, px.
const TYPE: (f64, f64) = (12.5, 11.0);

/// How a stage stands, as far as the eye is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Something ran.
    Ran,
    /// All was known, or there was nothing to compute.
    Known,
    /// Units failed.
    Failed,
    /// It never began, or nobody can tell.
    Skipped,
    /// Units have to run.
    Due,
}

/// A stage to be drawn.
#[derive(Clone, Debug)]
pub struct Boxed {
    /// Its name.
    pub name: String,
    /// What stands below it.
    pub status: String,
    /// What is said of it when one points at it.
    pub tip: String,
    /// Its colours.
    pub look: Look,
    /// The stages it maps over.
    pub from: Vec<String>,
    /// Its constants: its own name for it, and the stage.
    pub with: Vec<(String, String)>,
}

/// A drawn graph.
pub struct Graphed {
    /// The SVG element, with colours of the palette.
    pub svg: String,
    /// Width and height, px.
    pub size: (u32, u32),
    /// What it shows, in words.
    pub alt: String,
    /// Whether it has dashed lines, and lines that are broken.
    pub parts: (bool, bool),
}

/// How to show a stage.
pub(super) fn look(node: &FinishedNode) -> Look {
    match node.state {
        NodeState::Failed => Look::Failed,
        NodeState::Skipped => Look::Skipped,
        NodeState::Done if node.failed > 0 => Look::Failed,
        NodeState::Done if node.executed > 0 => Look::Ran,
        NodeState::Done => Look::Known,
    }
}

/// Draws the stages, and says how to read the drawing; `None` if there are none.
pub(super) fn draw(nodes: &[FinishedNode]) -> Option<(Drawing, String)> {
    let boxed = |node: &FinishedNode| Boxed {
        name: node.name.clone(),
        status: status(node),
        tip: format!("{}: {} v{}, {}", node.name, node.kind, node.version, duration(node.seconds)),
        look: look(node),
        from: node.from.clone(),
        with: node.with.clone(),
    };
    let drawn = draw_boxes(&nodes.iter().map(boxed).collect::<Vec<_>>())?;
    let mut legend = vec!["Green stages ran, grey ones were known or had nothing to compute."];
    legend.push("Solid lines: a stage works through the other's rows.");
    if drawn.parts.0 {
        legend.push("Dashed lines: it takes them as a whole.");
    }
    if drawn.parts.1 {
        legend.push("Names in italics: where a line goes on.");
    }
    if nodes.iter().any(|node| node.name.ends_with("@*")) {
        legend.push("Names that end in `@*`: the rows of all variants, below each other.");
    }
    let drawing = Drawing { name: "stages.svg".into(), svg: drawn.svg, size: drawn.size, alt: drawn.alt };
    Some((drawing, legend.join(" ")))
}

/// The edges between stages, each once, with whether it is a constant; one that a stage maps over and takes as a
/// constant too counts as mapped over.
pub fn edges(nodes: &[Boxed]) -> Vec<((usize, usize), bool)> {
    let places: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect();
    let mut edges = Vec::new();
    for (to, node) in nodes.iter().enumerate() {
        let mut seen = HashSet::new();
        let from = node.from.iter().map(|name| (name, false));
        for (name, constant) in from.chain(node.with.iter().map(|(_, name)| (name, true))) {
            if let Some(&from) = places.get(name.as_str())
                && from != to
                && seen.insert(from)
            {
                edges.push(((from, to), constant));
            }
        }
    }
    edges
}

/// Draws boxes and what leads from one to another; `None` if there are none.
pub fn draw_boxes(nodes: &[Boxed]) -> Option<Graphed> {
    if nodes.is_empty() {
        return None;
    }
    let (edges, constant): (Vec<(usize, usize)>, Vec<bool>) = edges(nodes).into_iter().unzip();
    let lines: Vec<(String, String)> = nodes.iter().map(|node| (shortened(&node.name), node.status.clone())).collect();
    let width = |(name, status): &(String, String)| {
        (text_width(name, TYPE.0) * 1.14).max(text_width(status, TYPE.1) * 1.06).ceil().max(56.0) + 22.0
    };
    let widths: Vec<f64> = lines.iter().map(width).collect();
    let placed = layers::place(&Graph { widths: widths.clone(), edges: edges.clone() });
    let name_room = |v: usize| text_width(&lines[v].0, TYPE.1) + 6.0;
    let folded = fold::fold(&placed, &widths, &edges, PAGE - 2.0 * MARGIN, &name_room);

    let mut body = String::new();
    for (e, pieces) in folded.edges.iter().enumerate() {
        let dash = if constant[e] { " stroke-dasharray=\"4 3\"" } else { "" };
        for (p, piece) in pieces.iter().enumerate() {
            let last = p + 1 == pieces.len();
            let path = path(piece, if last { port(e, &edges, &placed) } else { 0.0 }, last);
            body += &format!("<path d=\"{path}\" fill=\"none\" stroke=\"var(--edge)\" stroke-width=\"1.3\"{dash}/>\n");
        }
        let (x, y) = folded.nodes[edges[e].1];
        let tip = format!("M{:.1} {:.1}l-6.5 -3.2v6.4z", x - 0.5, y + port(e, &edges, &placed));
        body += &format!("<path d=\"{tip}\" fill=\"var(--edge)\"/>\n");
    }
    for &(v, (x, y), right) in &folded.breaks {
        let (anchor, x) = if right { ("start", x + 4.0) } else { ("end", x - 4.0) };
        let (y, size, name) = (y + 3.5, TYPE.1, escape(&lines[v].0));
        body += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-style=\"italic\" fill=\"var(--faint)\" \
             text-anchor=\"{anchor}\">{name}</text>\n"
        );
    }
    for (v, node) in nodes.iter().enumerate() {
        body += &boxed(node, &lines[v], folded.nodes[v], widths[v]);
    }
    let (w, h) = ((folded.size.0 + 2.0 * MARGIN).ceil(), (folded.size.1 + 2.0 * MARGIN).ceil());
    let alt = format!("The graph of {}", counted(nodes.len(), "stage"));
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"-{MARGIN} -{MARGIN} {w} {h}\" \
         role=\"img\" aria-label=\"{alt}\" \
         font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif\">\n{body}</svg>"
    );
    let parts = (constant.contains(&true), !folded.breaks.is_empty());
    Some(Graphed { svg, size: (w as u32, h as u32), alt, parts })
}

/// One stage: a box with a coloured edge, its name, and what became of it.
fn boxed(node: &Boxed, (name, status): &(String, String), (x, y): (f64, f64), width: f64) -> String {
    let (stripe, ground, ink) = match node.look {
        Look::Due => ("var(--due)", "var(--due-ground)", "var(--ink)"),
        Look::Ran => ("var(--ran)", "var(--ran-ground)", "var(--ink)"),
        Look::Known => ("var(--edge)", "var(--panel)", "var(--ink)"),
        Look::Failed => ("var(--bad)", "var(--bad-ground)", "var(--ink)"),
        Look::Skipped => ("none", "var(--ground)", "var(--faint)"),
    };
    let dash = if node.look == Look::Skipped { " stroke-dasharray=\"3 3\"" } else { "" };
    let top = y - NODE / 2.0;
    let second = if node.look == Look::Failed { "var(--bad)" } else { "var(--faint)" };
    format!(
        "<g><title>{title}</title>\
         <rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.0}\" height=\"{NODE}\" rx=\"5\" fill=\"{ground}\" \
         stroke=\"var(--line)\"{dash}/>\
         <rect x=\"{x:.1}\" y=\"{stripe_top:.1}\" width=\"3.5\" height=\"{stripe_height}\" rx=\"1.75\" fill=\"{stripe}\"/>\
         <text x=\"{text_x:.1}\" y=\"{name_y:.1}\" font-size=\"{}\" font-weight=\"600\" fill=\"{ink}\">{}</text>\
         <text x=\"{text_x:.1}\" y=\"{status_y:.1}\" font-size=\"{}\" fill=\"{second}\">{}</text></g>\n",
        TYPE.0,
        escape(name),
        TYPE.1,
        escape(status),
        title = escape(&node.tip),
        stripe_top = top + 7.0,
        stripe_height = NODE - 14.0,
        text_x = x + 11.0,
        name_y = y - 3.5,
        status_y = y + 12.0,
    )
}

/// What became of a stage, in few words: `24 ran · 3.2 s`.
fn status(node: &FinishedNode) -> String {
    if node.state == NodeState::Skipped {
        return "skipped".into();
    }
    let counts = [(node.failed, "failed"), (node.executed, "ran"), (node.cached, "known")];
    let mut parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if parts.is_empty() {
        parts.push(match &node.manifest {
            Some(manifest) => counted(manifest.len(), "row"),
            None => "nothing ran".into(),
        });
    }
    if node.seconds >= 0.05 {
        parts.push(duration(node.seconds));
    }
    parts.join(" · ")
}

/// Where on the left side of its box an edge ends: edges are spread in the order of the heights they come from.
fn port(edge: usize, edges: &[(usize, usize)], placed: &layers::Placed) -> f64 {
    let height = |e: usize| placed.routes[e].last().map_or(placed.nodes[edges[e].0].1, |station| station.2);
    let mut here: Vec<usize> = (0..edges.len()).filter(|&e| edges[e].1 == edges[edge].1).collect();
    here.sort_by(|&a, &b| height(a).total_cmp(&height(b)));
    let place = here.iter().position(|&e| e == edge).expect("it is among them") as f64;
    let room = (NODE - 16.0) / here.len().max(3) as f64;
    (place - (here.len() - 1) as f64 / 2.0) * room
}

/// A piece of an edge as a path: bends between layers, level within them. The last piece ends `port` px below the
/// middle of its box, where the arrow's tip begins.
fn path(piece: &Piece, port: f64, last: bool) -> String {
    let mut out = format!("M{:.1} {:.1}", piece[0].0, piece[0].1);
    // pairs of points: where a bend ends, and where the next begins
    let stops = piece[1..].chunks(2).count();
    let mut at = piece[0];
    for (i, stop) in piece[1..].chunks(2).enumerate() {
        let (mut to, next) = (stop[0], stop[stop.len() - 1]);
        let end = last && i + 1 == stops;
        if end {
            to = (to.0 - 6.0, to.1 + port);
        }
        let middle = (at.0 + to.0) / 2.0;
        out += &format!("C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}", at.1, to.1, to.0, to.1);
        if !end && next.0 > to.0 {
            out += &format!("H{:.1}", next.0);
        }
        at = next;
    }
    out
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.into();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

/// About how wide a text is in a common sans-serif face; a little too wide rather than too narrow.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | '.' | ',' | ':' | '|' | '\'' | ' ' | '(' | ')' | '·' => 0.36,
        'm' | 'w' | 'M' | 'W' | '@' | '…' => 0.93,
        c if c.is_ascii_uppercase() => 0.72,
        c if c.is_ascii() => 0.61,
        _ => 1.0,
    };
    text.chars().map(of).sum::<f64>() * size
}
