//! The fields of a YAML mapping, taken one by one with their types; what is left over in the end is a mistake. Knows no
//! particular mapping.

use crate::error::{Place, Problem};
use crate::yaml::{At, Item, Key, Node};

/// What to say of a field that belongs at the top of a recipe, or that recipes of other programs have; `None` if it is
/// only unknown.
pub fn elsewhere(place: &Place, owner: &str, name: &str) -> Option<Problem> {
    let hint = "put `matrix: { seed: [1, 2] }` beside `stages:`, and `${seed}` where a stage differs; `gather: STAGE` puts the \
                tables of all its variants together";
    match name {
        "matrix" | "variants" => {
            Some(Problem::at(place, format!("{owner}: `{name}:` stands at the top of a recipe")).hint(hint))
        }
        "foreach" => Some(Problem::at(place, format!("{owner}: there is no `foreach:`")).hint(hint)),
        _ => None,
    }
}

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

    /// The fields of an item, which must be a mapping like the example.
    pub fn of(file: &'a str, owner: impl Into<String>, item: Item, example: &str) -> Result<Fields<'a>, Problem> {
        let owner = owner.into();
        match item.node {
            Node::Map(items) => Ok(Fields::new(file, owner, item.at, items)),
            node => {
                let place =
                    Place { file: item.at.file.unwrap_or(file).into(), line: item.at.line, column: item.at.column };
                let problem = Problem::at(&place, format!("{owner} must be a mapping, not {}", node.what()));
                Err(problem.hint(format!("for example `{example}`")))
            }
        }
    }

    /// The place of an item of this file.
    pub fn place(&self, at: At) -> Place {
        // `--set` puts in fields that stand in no file
        at.place(self.file)
    }

    /// Where the mapping begins.
    pub fn at(&self) -> At {
        self.at
    }

    /// Notes something wrong, and what to do about it.
    pub fn wrong(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        let place = self.place(at);
        self.problems.push(Problem::at(&place, message).hint(hint));
    }

    /// A field as it is.
    pub fn take(&mut self, name: &str) -> Option<Item> {
        self.known.push(name.into());
        let i = self.items.iter().position(|(key, _)| key.name == name)?;
        Some(self.items.remove(i).1)
    }

    fn typed<T>(
        &mut self,
        name: &str,
        (wanted, example): (&str, &str),
        get: impl Fn(&Node) -> Option<T>,
    ) -> Option<(At, T)> {
        let item = self.take(name)?;
        let value = get(&item.node);
        if value.is_none() {
            let found = match &item.node {
                Node::Int(number) if wanted.contains("integer") => number.to_string(),
                other => other.what().to_string(),
            };
            let message = format!("`{name}` of {} must be {wanted}, not {found}", self.owner);
            // what was meant is plain where only the quotes are missing or too many
            let hint = match &item.node {
                Node::Int(number) if wanted == "text" => format!("write it in quotes: `{name}: \"{number}\"`"),
                Node::Float(number) if wanted == "text" => format!("write it in quotes: `{name}: \"{number}\"`"),
                Node::Bool(value) if wanted == "text" => format!("write it in quotes: `{name}: \"{value}\"`"),
                Node::Text(text) => match unquoted(text).filter(|node| get(node).is_some()) {
                    Some(_) => format!("write it without quotes: `{name}: {}`", text.trim()),
                    None => format!("for example `{name}: {example}`"),
                },
                _ => format!("for example `{name}: {example}`"),
            };
            self.wrong(item.at, message, hint);
        }
        value.map(|value| (item.at, value))
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Option<(At, String)> {
        self.typed(name, ("text", "a name"), |node| match node {
            Node::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A truth value; false if it is not there.
    pub fn flag(&mut self, name: &str) -> bool {
        let flag = self.typed(name, ("`true` or `false`", "true"), |node| match node {
            Node::Bool(value) => Some(*value),
            _ => None,
        });
        flag.is_some_and(|(_, value)| value)
    }

    /// A truth value, or one of some words with their meanings; nothing if it is false or not there.
    pub fn flag_or<T: Copy>(&mut self, name: &str, meant: T, words: &[(&str, T)]) -> Option<T> {
        let all = ["true", "false"].into_iter().chain(words.iter().map(|(word, _)| *word));
        let mut names: Vec<String> = all.map(|word| format!("`{word}`")).collect();
        let last = names.pop().expect("there are two at least");
        let wanted = format!("{} or {last}", names.join(", "));
        let value = self.typed(name, (&wanted, "true"), |node| match node {
            Node::Bool(value) => Some(value.then_some(meant)),
            Node::Text(text) => words.iter().find(|(word, _)| word == text).map(|(_, value)| Some(*value)),
            _ => None,
        });
        value.and_then(|(_, value)| value)
    }

    /// An integer that is not negative.
    pub fn count(&mut self, name: &str) -> Option<(At, u64)> {
        self.typed(name, ("an integer, at least 0", "1"), |node| match node {
            Node::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Option<(At, f64)> {
        self.typed(name, ("a number", "0.5"), |node| match node {
            Node::Int(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            _ => None,
        })
    }

    /// A share, from 0 to 1, of things of some kind.
    pub fn share(&mut self, name: &str, (of, example): (&str, &str)) -> Option<f64> {
        let (at, share) = self.number(name)?;
        if !(0.0..=1.0).contains(&share) {
            let hint = format!("for example `{name}: {example}");
            self.wrong(at, format!("`{name}` is a share of the {of}, from 0 to 1, not {share}"), hint);
        }
        Some(share)
    }

    /// A text, or a list of texts.
    pub fn texts(&mut self, name: &str) -> Option<Vec<(At, String)>> {
        let item = self.take(name)?;
        let texts = texts_of(&item);
        if texts.is_none() {
            let message =
                format!("`{name}` of {} must be a name or a list of names, not {}", self.owner, item.node.what());
            self.wrong(item.at, message, format!("for example `{name}: a` or `{name}: [a, b]`; numbers go in quotes"));
        }
        texts
    }

    /// A mapping.
    pub fn map(&mut self, name: &str) -> Option<(At, Vec<(Key, Item)>)> {
        self.typed(name, ("a mapping", "{ name: value }"), |node| match node {
            Node::Map(items) => Some(items.clone()),
            _ => None,
        })
    }

    /// A list.
    pub fn list(&mut self, name: &str) -> Option<(At, Vec<Item>)> {
        self.typed(name, ("a list", "[value, value]"), |node| match node {
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
            let place = self.place(key.at);
            let unknown = || {
                Problem::at(&place, format!("{} has no field `{}`", self.owner, key.name))
                    .did_you_mean(&key.name, self.known.iter().map(String::as_str))
                    .or_hint("it takes no other fields: leave it out")
            };
            let problem = elsewhere(&place, &self.owner, &key.name).unwrap_or_else(unknown);
            self.problems.push(problem);
        }
        self.problems
    }
}

/// What a text would be without its quotes, if that is a number or a truth value.
pub fn unquoted(text: &str) -> Option<Node> {
    match crate::yaml::parse("", text).ok()?.node {
        node @ (Node::Int(_) | Node::Float(_) | Node::Bool(_)) => Some(node),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(yaml: &str, read: impl Fn(&mut Fields<'_>)) -> String {
        let mut fields = Fields::of("r", "it", crate::yaml::parse("r", yaml).unwrap(), "{}").unwrap();
        read(&mut fields);
        let problems = fields.finish();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].hint.clone().unwrap_or_default()
    }

    #[test]
    fn a_wrong_type_is_answered_by_a_valid_value() {
        let number = |fields: &mut Fields<'_>| _ = fields.number("a");
        assert_eq!(hint("a: '2.5'", number), "write it without quotes: `a: 2.5`");
        assert_eq!(hint("a: two", number), "for example `a: 0.5`");
        assert_eq!(hint("a: 7", |fields| _ = fields.text("a")), "write it in quotes: `a: \"7\"`");
        assert_eq!(hint("a: x", |fields| _ = fields.flag("a")), "for example `a: true`");
        assert_eq!(hint("a: -1", |fields| _ = fields.count("a")), "for example `a: 1`");
        assert_eq!(hint("a: 3", |fields| _ = fields.map("a")), "for example `a: { name: value }`");
    }

    #[test]
    fn fields_nobody_knows_are_told_from_those_that_belong_elsewhere() {
        assert_eq!(hint("a: 1", |_| ()), "it takes no other fields: leave it out");
        assert!(hint("foreach: [1, 2]", |_| ()).contains("beside `stages:`"));
    }
}
