//! YAML as a tree in which every item knows its line: the only file that names the parser. Knows no recipe.
//!
//! Duplicate keys are errors of the parser; anchors and merge keys are YAML's own and work. Scalars have YAML 1.2's
//! types: `true` is a truth value, `yes` and `no` are text.

use crate::error::{Place, Problem};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::fmt;

/// Line and column, from 1; both 0 for what does not come from a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
    /// The file, if it is not the recipe itself but one that it extends.
    pub file: Option<&'static str>,
}

impl At {
    /// The place, in the recipe `file` if it is no other's; what comes from the command line is told so.
    pub fn place(self, file: &str) -> Place {
        if self.line == 0 {
            return Place::command_line();
        }
        Place { file: self.file.unwrap_or(file).into(), line: self.line, column: self.column }
    }
}

/// A YAML node with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it begins.
    pub at: At,
    /// What it is.
    pub node: Node,
}

/// What a YAML node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a point.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Item>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Item)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub at: At,
    /// The key.
    pub name: String,
}

impl Node {
    /// What to call it in a message.
    pub fn what(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "a truth value",
            Node::Int(_) => "an integer",
            Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }
}

impl Item {
    /// The item as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.node {
            Node::Null => serde_json::Value::Null,
            Node::Bool(value) => (*value).into(),
            Node::Int(value) => (*value).into(),
            Node::Float(value) => {
                serde_json::Number::from_f64(*value).map_or(serde_json::Value::Null, serde_json::Value::Number)
            }
            Node::Text(value) => value.as_str().into(),
            Node::List(items) => items.iter().map(Item::to_json).collect(),
            Node::Map(items) => items
                .iter()
                .map(|(key, item)| (key.name.clone(), item.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// What to do about a number that is not read as it is written.
pub const WHOLE: &str = "write it without zeros before it, or, if it is a name, in quotes";

/// Says how whole numbers are read that begin with 0, or are too large.
pub fn not_whole(digits: &str) -> String {
    format!("`{digits}` would become a number with a point: it begins with 0, or is beyond 64 bits")
}

/// Whether a text is written as a whole number.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// The first number with a point that is written without.
pub fn rounded<'s>(item: &Item, lines: &mut Vec<&'s str>, source: &'s str) -> Option<(At, String)> {
    match &item.node {
        Node::Float(_) => {
            if lines.is_empty() {
                lines.extend(source.lines());
            }
            let line = lines.get((item.at.line as usize).checked_sub(1)?)?;
            let number = line.chars().skip((item.at.column as usize).checked_sub(1)?);
            let number: String = number.take_while(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)).collect();
            is_whole(&number).then_some((item.at, number))
        }
        Node::List(items) => items.iter().find_map(|item| rounded(item, lines, source)),
        Node::Map(items) => items.iter().find_map(|(_, item)| rounded(item, lines, source)),
        _ => None,
    }
}

/// Parses a file's text; `file` is its name in messages.
///
/// # Errors
/// If it is not YAML, has a key twice, is absurdly large, or has a whole number that is not read as one.
pub fn parse(file: &str, source: &str) -> Result<Item, Problem> {
    let item = parse_loosely(file, source)?;
    match rounded(&item, &mut Vec::new(), source) {
        Some((at, digits)) => Err(Problem::at(&at.place(file), not_whole(&digits)).hint(WHOLE)),
        None => Ok(item),
    }
}

/// The same, whatever numbers are read as.
///
/// # Errors
/// If it is not YAML, has a key twice, or is absurdly large.
pub fn parse_loosely(file: &str, source: &str) -> Result<Item, Problem> {
    let budget = serde_yaml::budget! { max_nodes: 20_000_000, max_events: 40_000_000, max_total_scalar_bytes: 1 << 30, max_depth: 200 };
    let options = serde_yaml::options! { budget: budget, strict_booleans: true, with_snippet: false };
    serde_yaml::from_str_with_options::<Item>(source, options).map_err(|error| {
        let at = error.location().map_or(At::default(), |location| at(&location));
        let place = Place { file: file.into(), line: at.line, column: at.column };
        let text = error.without_snippet().to_string();
        // the place is said already, and only once
        let text = text.lines().next().unwrap_or_default();
        let text = text.split(" at line ").next().unwrap_or(text).trim_end_matches([':', ',']);
        // what a program could set in the parser, nobody who writes YAML can
        let text = text.split(", set ").next().unwrap_or(text).trim_end_matches(" rejected by the configured policy");
        if let Some((_, message, hint)) = BOUNDS.iter().find(|(words, ..)| text.contains(words)) {
            return Problem::at(&place, *message).hint(*hint);
        }
        let problem = Problem::at(&place, format!("this is not valid YAML here: {text}"));
        let line = source.lines().nth((at.line as usize).saturating_sub(1)).unwrap_or_default();
        problem.hint(if text.contains("duplicate") {
            "each key may stand once; rename or remove one of the two"
        } else if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
            "YAML is indented by blanks, not by tabs"
        } else if text.contains("non-finite") {
            "a value that is not there is `null`; no parameter takes infinity"
        } else if text.contains("64 bits") {
            "write it in quotes if it is a name, or with a point if it is a number"
        } else {
            "see the indentation here and above, and brackets and quotes that are not closed; text that holds `: ` or ` #`, \
             or begins with `*`, `&`, `%`, `@`, `{` or `[`, needs quotes, and so does `${name}` within `{ }` or `[ ]`"
        })
    })
}

/// What the parser says of YAML that is well formed and still no recipe; what to say instead, and what to do.
const BOUNDS: [(&str, &str, &str); 3] = [
    (
        "budget breached",
        "this file is too large, or its aliases unfold to too much",
        "leave out aliases (`*name`) of what holds many aliases itself; tables of many rows go into files",
    ),
    (
        "recursion limit",
        "lists and mappings stand in each other too deep here",
        "close those that have ended: see the brackets",
    ),
    (
        "multiple YAML documents",
        "a second YAML document begins here, and a recipe is one",
        "leave out the line `---` before it, or make a file of each",
    ),
];

fn at(location: &serde_yaml::Location) -> At {
    At { line: location.line() as u32, column: location.column() as u32, file: None }
}

/// Parses the text of a file that a recipe extends; its items know that they stand there.
///
/// # Errors
/// As [`parse`].
pub fn parse_beside(file: &str, source: &str) -> Result<Item, Problem> {
    // a name for as long as the process lives, so that places stay small and can be copied; recipes extend few others
    let name: &'static str = file.to_string().leak();
    let mut item = parse(file, source)?;
    stand_in(&mut item, name);
    Ok(item)
}

fn stand_in(item: &mut Item, file: &'static str) {
    item.at.file = Some(file);
    match &mut item.node {
        Node::List(items) => items.iter_mut().for_each(|item| stand_in(item, file)),
        Node::Map(items) => items.iter_mut().for_each(|(key, item)| {
            key.at.file = Some(file);
            stand_in(item, file);
        }),
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Item { at: at(&spanned.referenced), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Key { at: at(&spanned.referenced), name: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        i64::try_from(value).map(Node::Int).map_err(|_| E::custom("an integer beyond 64 bits"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(entry) = access.next_entry()? {
            items.push(entry);
        }
        Ok(Node::Map(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_know_their_lines_and_types() {
        let item = parse("r.yaml", "a: 1\nb:\n  - x\n  - 0.5\n  - no\n  - true\n  - ~\n").unwrap();
        let Node::Map(items) = item.node else { panic!("{item:?}") };
        assert_eq!((items[1].0.name.as_str(), items[1].0.at.line), ("b", 2));
        let Node::List(list) = &items[1].1.node else { panic!() };
        let nodes: Vec<Node> = list.iter().map(|item| item.node.clone()).collect();
        let text = |text: &str| Node::Text(text.into());
        assert_eq!(nodes, [text("x"), Node::Float(0.5), text("no"), Node::Bool(true), Node::Null]);
        assert_eq!(list[1].at, At { line: 4, column: 5, file: None });
    }

    #[test]
    fn a_whole_number_is_read_as_one_or_told_of() {
        let float = |text: &str| parse("r.yaml", text).map(|item| item.node);
        for (text, line, digits) in [
            ("a: 018\n", 1, "018"),
            ("b: [1, 2]\na:\n- { x: 0.5, y: 007 }\n", 3, "007"),
            ("a: -9223372036854775809\n", 1, "-9223372036854775809"),
            ("a: 123456789012345678901234567890", 1, "123456789012345678901234567890"),
        ] {
            let problem = float(text).unwrap_err();
            assert!(problem.place.as_ref().is_some_and(|place| place.line == line), "{problem}");
            assert!(problem.message.starts_with(&format!("`{digits}`")), "{problem}");
        }
        for text in ["a: 0.5", "a: 1e3", "a: .5", "a: 5.", "a: \"018\"", "a: 0", "a: [1.5, -2.0e-3]", "a: 1_000.5"] {
            assert!(float(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for (text, line) in [("a: 1\na: 2\n", 2), ("a: [1\nb: 2\n", 2), ("a:\n\t- 1\n", 2), ("x: {s: 1, s: 2}", 1)] {
            let problem = parse("r.yaml", text).unwrap_err();
            assert_eq!(problem.place.as_ref().map(|place| place.line), Some(line), "{text:?}: {problem}");
        }
    }

    #[test]
    fn what_is_too_much_of_yaml_is_told_without_the_parsers_own_words() {
        let deep = format!("a: {}", "[".repeat(5000));
        for (text, said) in [(deep.as_str(), "too deep"), ("a: 1\n---\nb: 2\n", "a second YAML document")] {
            let problem = parse("r.yaml", text).unwrap_err();
            assert!(problem.message.contains(said), "{problem}");
            let hint = problem.hint.clone().unwrap_or_default();
            assert!(!hint.contains("indentation") && !problem.to_string().contains("from_str"), "{problem}");
        }
    }
}
