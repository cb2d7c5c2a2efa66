//! The fields of a YAML mapping, taken one by one with their types; what is left over in the end is a mistake. Knows no
//! particular mapping.

use crate::error::{Place, Problem};
use crate::yaml::{At, Item, Key, Node};

/// The fields of one mapping, and what turned out to be wrong with them.
pub struct Fields<'a> {
    file: &'a str,
    owner: String,
    at: At,
    items: Vec<(Key, Item)>,
    known: Vec<String>,
    /// What was wrong so far.
    pub problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// The fields of a mapping that messages call `owner`.
    pub fn new(file: &'a str, owner: impl Into<String>, at: At, items: Vec<(Key, Item)>) -> Fields<'a> {
        Fields { file, owner: owner.into(), at, items, known: Vec::new(), problems: Vec::new() }
    }

    /// The fields of an item, which must be a mapping.
    pub fn of(file: &'a str, owner: impl Into<String>, item: Item) -> Result<Fields<'a>, Problem> {
        let owner = owner.into();
        match item.node {
            Node::Map(items) => Ok(Fields::new(file, owner, item.at, items)),
            node => {
                let place = Place { file: file.into(), line: item.at.line, column: item.at.column };
                Err(Problem::at(&place, format!("{owner} must be a mapping, not {}", node.what())))
            }
        }
    }

    /// The place of an item of this file.
    pub fn place(&self, at: At) -> Place {
        Place { file: self.file.into(), line: at.line, column: at.column }
    }

    /// Where the mapping begins.
    pub fn at(&self) -> At {
        self.at
    }

    /// Notes something wrong.
    pub fn wrong(&mut self, at: At, message: impl Into<String>) {
        let place = self.place(at);
        self.problems.push(Problem::at(&place, message));
    }

    /// A field as it is.
    pub fn take(&mut self, name: &str) -> Option<Item> {
        self.known.push(name.into());
        let i = self.items.iter().position(|(key, _)| key.name == name)?;
        Some(self.items.remove(i).1)
    }

    fn typed<T>(&mut self, name: &str, wanted: &str, get: impl Fn(&Node) -> Option<T>) -> Option<(At, T)> {
        let item = self.take(name)?;
        let value = get(&item.node);
        if value.is_none() {
            let message = format!("`{name}` of {} must be {wanted}, not {}", self.owner, item.node.what());
            self.wrong(item.at, message);
        }
        value.map(|value| (item.at, value))
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Option<(At, String)> {
        self.typed(name, "text", |node| match node {
            Node::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A truth value; false if it is not there.
    pub fn flag(&mut self, name: &str) -> bool {
        let flag = self.typed(name, "`true` or `false`", |node| match node {
            Node::Bool(value) => Some(*value),
            _ => None,
        });
        flag.is_some_and(|(_, value)| value)
    }

    /// An integer that is not negative.
    pub fn count(&mut self, name: &str) -> Option<(At, u64)> {
        self.typed(name, "an integer, at least 0", |node| match node {
            Node::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Option<(At, f64)> {
        self.typed(name, "a number", |node| match node {
            Node::Int(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            _ => None,
        })
    }

    /// A text, or a list of texts.
    pub fn texts(&mut self, name: &str) -> Option<Vec<(At, String)>> {
        let item = self.take(name)?;
        let texts = texts_of(&item);
        if texts.is_none() {
            let message =
                format!("`{name}` of {} must be a name or a list of names, not {}", self.owner, item.node.what());
            self.wrong(item.at, message);
        }
        texts
    }

    /// A mapping.
    pub fn map(&mut self, name: &str) -> Option<(At, Vec<(Key, Item)>)> {
        self.typed(name, "a mapping", |node| match node {
            Node::Map(items) => Some(items.clone()),
            _ => None,
        })
    }

    /// A list.
    pub fn list(&mut self, name: &str) -> Option<(At, Vec<Item>)> {
        self.typed(name, "a list", |node| match node {
            Node::List(items) => Some(items.clone()),
            _ => None,
        })
    }

    /// Notes that a field is missing.
    pub fn missing(&mut self, name: &str, hint: &str) {
        let message = format!("{} needs `{name}:`", self.owner);
        let problem = Problem::at(&self.place(self.at), message).hint(hint);
        self.problems.push(problem);
    }

    /// Takes all that is left, as it is.
    pub fn rest(&mut self) -> Vec<(Key, Item)> {
        std::mem::take(&mut self.items)
    }

    /// Ends the reading: every field that nobody took is a mistake.
    pub fn finish(mut self) -> Vec<Problem> {
        for (key, _) in std::mem::take(&mut self.items) {
            let problem = Problem::at(&self.place(key.at), format!("{} has no field `{}`", self.owner, key.name))
                .did_you_mean(&key.name, self.known.iter().map(String::as_str));
            self.problems.push(problem);
        }
        self.problems
    }
}

/// A text or a list of texts.
pub fn texts_of(item: &Item) -> Option<Vec<(At, String)>> {
    match &item.node {
        Node::Text(text) => Some(vec![(item.at, text.clone())]),
        Node::List(items) => items
            .iter()
            .map(|item| match &item.node {
                Node::Text(text) => Some((item.at, text.clone())),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}
