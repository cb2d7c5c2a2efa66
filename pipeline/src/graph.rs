//! The stages of a plan as a diagram to print or to paste: Mermaid, DOT, or the SVG of reports. Knows nothing of how it
//! is found out what state a stage is in.

use crate::report::graph::{Boxed, Look, draw_boxes};
use crate::report::palette;

/// What a run would find of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it is known.
    Known,
    /// Something has to run.
    ToRun,
    /// Nobody can tell before other stages have run.
    Unknown,
    /// The last run failed here, and it has to run again.
    Failed,
}

/// A stage of the diagram.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What is written below the name.
    pub line: String,
    /// Its state.
    pub state: State,
    /// The stages it maps over, by number.
    pub from: Vec<usize>,
    /// Its constants: its own name for it, and the stage.
    pub with: Vec<(String, usize)>,
}

/// Each state, how it is called in Mermaid, how it looks in a drawing, and what that means.
const STATES: [(State, &str, Look, &str); 4] = [
    (State::Known, "known", Look::Ran, "known"),
    (State::ToRun, "due", Look::Due, "to run"),
    (State::Unknown, "unknown", Look::Skipped, "unknown until others have run"),
    (State::Failed, "failed", Look::Failed, "failed last time"),
];

impl State {
    fn entry(self) -> (&'static str, Look) {
        let found = STATES.iter().find(|(state, ..)| *state == self).expect("all are listed");
        (found.1, found.2)
    }

    /// Ground, border and letters, on light ground.
    fn colours(self) -> [String; 3] {
        let names = match self {
            State::Known => ["ran-ground", "ran", "ink"],
            State::ToRun => ["due-ground", "due", "ink"],
            State::Unknown => ["ground", "edge", "faint"],
            State::Failed => ["bad-ground", "bad", "ink"],
        };
        names.map(|name| palette::light(&format!("var(--{name})")))
    }
}

/// The arrows of a diagram: from, to, and the name of a constant.
fn arrows(stages: &[Stage]) -> Vec<(usize, usize, Option<&str>)> {
    let mut arrows: Vec<(usize, usize, Option<&str>)> = Vec::new();
    for (to, stage) in stages.iter().enumerate() {
        arrows.extend(stage.from.iter().map(|from| (*from, to, None)));
        arrows.extend(stage.with.iter().map(|(name, from)| (*from, to, Some(name.as_str()))));
    }
    arrows
}

/// As Mermaid, which GitHub and GitLab draw in Markdown.
pub fn mermaid(stages: &[Stage]) -> String {
    // entities, in Mermaid's spelling; `#` first, since they begin with it
    let plain = |text: &str| {
        let text = text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
        text.replace('\n', " ")
    };
    let mut out = "flowchart LR\n".to_string();
    for (i, stage) in stages.iter().enumerate() {
        let (name, line, class) = (plain(&stage.name), plain(&stage.line), stage.state.entry().0);
        out += &format!("  s{i}[\"{name}<br/>{line}\"]:::{class}\n");
    }
    for (from, to, constant) in arrows(stages) {
        match constant {
            None => out += &format!("  s{from} --> s{to}\n"),
            Some(name) => out += &format!("  s{from} -. \"{}\" .-> s{to}\n", plain(name)),
        }
    }
    for (state, class, ..) in STATES {
        let [ground, border, ink] = state.colours();
        let dash = if state == State::Unknown { ",stroke-dasharray:3 3" } else { "" };
        out += &format!("  classDef {class} fill:{ground},stroke:{border},color:{ink}{dash}\n");
    }
    out
}

/// As DOT, which Graphviz draws.
pub fn dot(name: &str, stages: &[Stage]) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    let mut out = format!(
        "digraph \"{}\" {{\n  rankdir=LR\n  node [shape=box, fontname=\"sans-serif\", fontsize=11]\n  \
         edge [fontname=\"sans-serif\", fontsize=9]\n",
        plain(name)
    );
    for (i, stage) in stages.iter().enumerate() {
        let [ground, border, ink] = stage.state.colours();
        let style = if stage.state == State::Unknown { "rounded,filled,dashed" } else { "rounded,filled" };
        out += &format!(
            "  s{i} [label=\"{}\\n{}\", tooltip=\"{}\", style=\"{style}\", fillcolor=\"{ground}\", color=\"{border}\", \
             fontcolor=\"{ink}\"]\n",
            plain(&stage.name),
            plain(&stage.line),
            plain(&stage.kind)
        );
    }
    for (from, to, constant) in arrows(stages) {
        match constant {
            None => out += &format!("  s{from} -> s{to}\n"),
            Some(name) => out += &format!("  s{from} -> s{to} [style=dashed, label=\"{}\"]\n", plain(name)),
        }
    }
    out + "}\n"
}

/// Height of the line that explains the colours, px.
const LEGEND: u32 = 26;

/// As an SVG that stands alone, laid out as in reports.
pub fn svg(stages: &[Stage]) -> String {
    let name = |i: &usize| stages[*i].name.clone();
    let boxed = |stage: &Stage| Boxed {
        name: stage.name.clone(),
        status: stage.line.clone(),
        tip: format!("{}: {}, {}", stage.name, stage.kind, stage.line),
        look: stage.state.entry().1,
        from: stage.from.iter().map(name).collect(),
        with: stage.with.iter().map(|(own, i)| (own.clone(), name(i))).collect(),
    };
    let drawn = draw_boxes(&stages.iter().map(boxed).collect::<Vec<_>>());
    let (inner, (width, height)) = drawn.map_or((String::new(), (0, 0)), |drawn| (drawn.svg, drawn.size));
    let (mut legend, mut x) = (String::new(), 5);
    for (state, _, _, text) in STATES {
        if !stages.iter().any(|stage| stage.state == state) {
            continue;
        }
        let [ground, border, _] = state.colours();
        let dash = if state == State::Unknown { " stroke-dasharray=\"3 3\"" } else { "" };
        legend += &format!(
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"3\" fill=\"{ground}\" stroke=\"{border}\"{dash}/>\
             <text x=\"{}\" y=\"{}\">{text}</text>\n",
            height + 8,
            x + 18,
            height + 18
        );
        x += 40 + 6 * text.len() as u32;
    }
    let (width, height) = (width.max(x), height + LEGEND);
    palette::standalone(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         {inner}\n<g font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif\" font-size=\"11\" \
         fill=\"var(--faint)\">\n{legend}</g></svg>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages() -> Vec<Stage> {
        let stage = |name: &str, state, from: &[usize], with: &[(&str, usize)]| Stage {
            name: name.into(),
            kind: "run".into(),
            line: "2 to run".into(),
            state,
            from: from.to_vec(),
            with: with.iter().map(|(name, from)| (name.to_string(), *from)).collect(),
        };
        vec![stage("a\"<#", State::Known, &[], &[]), stage("b\\", State::Failed, &[0], &[("model", 0)])]
    }

    #[test]
    fn names_are_spelled_as_each_language_wants() {
        let text = mermaid(&stages());
        assert!(text.contains("s0[\"a#quot;#lt;#35;<br/>2 to run\"]:::known"), "{text}");
        assert!(text.contains("s0 --> s1\n  s0 -. \"model\" .-> s1\n"), "{text}");
        let text = dot("x", &stages());
        assert!(text.contains("s0 [label=\"a\\\"<#\\n2 to run\"") && text.contains("s1 [label=\"b\\\\\\n"), "{text}");
        let text = svg(&stages());
        assert!(text.contains("a&quot;&lt;#") && !text.contains("var(") && text.contains("failed last time"), "{text}");
        assert!(!text.contains("unknown until"), "the legend explains only what is there: {text}");
    }
}
