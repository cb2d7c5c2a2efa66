//! How fast stages were: their units, the seconds these took, and what was made in a second.
//!
//! The seconds are those that the records of the units hold, whichever run did the work. Knows no markup.

use super::document::{Cell, Head, Table};
use super::numbers::Style;
use crate::finished::{FinishedNode, NodeState};

/// The table of these stages. `count` names the stage whose rows are what was made; without it each stage's own rows
/// are.
pub(super) fn rates(nodes: &[FinishedNode], stages: &[String], count: Option<&str>) -> Table {
    let what = count.unwrap_or("rows");
    let head = [("stage", false), ("units", true), ("of them in this run", true), ("busy", true), (what, true)];
    let mut table = Table {
        head: head.map(|(text, number)| Head { text: text.into(), number, ..Head::default() }).into(),
        rows: Vec::new(),
        note: Some(format!(
            "busy: seconds that the tasks of these units took, in whichever run and on whichever machine that was, added up also where \
             tasks ran side by side; {what} a second: {what} over busy"
        )),
        ..Table::default()
    };
    table.head.push(Head { text: format!("{what} a second"), number: true, ..Head::default() });
    let found: Vec<_> = stages.iter().map(|stage| (stage, rate(nodes, stage, count.unwrap_or(stage)))).collect();
    let style = Style::of(found.iter().filter_map(|(_, rate)| rate.as_ref().ok().and_then(Rate::per_second)));
    for (stage, rate) in found {
        let mut row = vec![Cell::new(stage)];
        match rate {
            Err(why) => {
                row.extend(["–", "–", "–", "–"].map(Cell::faint));
                row.push(Cell::faint(format!("not available: {why}")));
            }
            Ok(rate) => {
                row.push(Cell::new(rate.units.to_string()));
                row.push(Cell::new(rate.executed.to_string()));
                row.push(rate.seconds.map_or(Cell::faint("not recorded"), Cell::duration));
                row.push(Cell::new(rate.made.to_string()));
                row.push(match rate.per_second() {
                    Some(rate) => Cell::new(style.write(rate)),
                    None => Cell::faint("not available: no time is recorded"),
                });
            }
        }
        table.rows.push(row);
    }
    table
}

struct Rate {
    units: usize,
    executed: usize,
    /// `None` if the records of the units hold no time.
    seconds: Option<f64>,
    made: usize,
}

impl Rate {
    fn per_second(&self) -> Option<f64> {
        self.seconds.map(|seconds| self.made as f64 / seconds)
    }
}

/// What the records say of a stage, of all its variants if it varies; or why there is nothing to say.
fn rate(nodes: &[FinishedNode], stage: &str, count: &str) -> Result<Rate, String> {
    let (worked, counted) = (named(nodes, stage)?, named(nodes, count)?);
    if worked.iter().all(|node| node.grain == "table") {
        return Err("a table of the engine's has no units".into());
    }
    let sum = |of: fn(&FinishedNode) -> usize| worked.iter().map(|node| of(node)).sum::<usize>();
    let seconds: f64 = worked.iter().map(|node| node.worth).sum();
    Ok(Rate {
        units: sum(|node| node.executed + node.cached),
        executed: sum(|node| node.executed),
        seconds: (seconds > 0.0).then_some(seconds),
        made: counted.iter().filter_map(|node| node.manifest.as_ref()).map(|manifest| manifest.len()).sum(),
    })
}

/// The nodes that a stage of the recipe has become, all of them done.
fn named<'a>(nodes: &'a [FinishedNode], stage: &str) -> Result<Vec<&'a FinishedNode>, String> {
    let is = |node: &&FinishedNode| match node.name.split_once('@') {
        // `@*` is what the report gathered for a table
        Some((base, values)) => base == stage && values != "*",
        None => node.name == stage,
    };
    let found: Vec<_> = nodes.iter().filter(is).collect();
    if found.is_empty() {
        return Err(format!("the recipe has no stage {stage}"));
    }
    match found.iter().find(|node| node.state != NodeState::Done || node.manifest.is_none()) {
        Some(node) if node.state == NodeState::Failed => Err(format!("{} failed", node.name)),
        Some(node) if node.state == NodeState::Skipped => Err(format!("something that {} needs failed", node.name)),
        Some(node) => Err(format!("the rows of {} are not there", node.name)),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::Manifest;

    fn node(name: &str, grain: &str, [executed, cached, rows]: [usize; 3], worth: f64) -> FinishedNode {
        FinishedNode {
            name: name.into(),
            kind: "k".into(),
            version: 1,
            grain: grain.into(),
            state: NodeState::Done,
            executed,
            cached,
            failed: 0,
            seconds: 0.0,
            worth,
            key: String::new(),
            params: Vec::new(),
            from: Vec::new(),
            with: Vec::new(),
            manifest: Some(Manifest::unit(rows)),
        }
    }

    fn texts(table: &Table) -> Vec<Vec<&str>> {
        table.rows.iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect()).collect()
    }

    #[test]
    fn what_was_known_counts_with_the_time_it_took_once() {
        let nodes = [
            node("capture", "row", [1, 3, 12], 20.0),
            node("frames", "row", [12, 0, 50], 5.0),
            node("old", "row", [0, 2, 2], 0.0),
            node("chosen", "table", [1, 0, 9], 0.0),
        ];
        let stages = ["capture", "frames", "old", "chosen"].map(String::from);
        let table = rates(&nodes, &stages, Some("frames"));
        assert_eq!(table.head[4].text, "frames");
        let rows = texts(&table);
        assert_eq!(rows[0], ["capture", "4", "1", "20 s", "50", "2.50"]);
        // as words, 5.0 s would stand behind 20 s
        let seconds: Vec<_> = table.rows.iter().map(|row| row[3].number.map(|number| number.value)).collect();
        assert_eq!(seconds, [Some(20.0), Some(5.0), None, None]);
        assert_eq!(rows[1], ["frames", "12", "12", "5.0 s", "50", "10.00"]);
        assert_eq!(rows[2], ["old", "2", "0", "not recorded", "50", "not available: no time is recorded"]);
        assert_eq!(rows[3][5], "not available: a table of the engine's has no units");
        // without `count`, each stage's own rows
        assert_eq!(texts(&rates(&nodes, &stages, None))[0][4..], ["12", "0.60"]);
    }

    #[test]
    fn variants_are_added_up_and_failures_named() {
        let mut nodes = vec![
            node("a@seed=1", "row", [1, 0, 3], 1.0),
            node("a@seed=2", "row", [1, 0, 5], 3.0),
            node("a@*", "table", [1, 0, 8], 0.0),
            node("ab", "row", [1, 0, 100], 9.0),
        ];
        let stages = ["a".to_string()];
        assert_eq!(texts(&rates(&nodes, &stages, None))[0], ["a", "2", "2", "4.0 s", "8", "2.000"]);
        (nodes[1].state, nodes[1].manifest) = (NodeState::Failed, None);
        assert_eq!(texts(&rates(&nodes, &stages, None))[0][5], "not available: a@seed=2 failed");
    }
}
