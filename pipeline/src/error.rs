//! What a user is told when something is wrong: a place, a sentence, a hint. Knows no particular mistake.

use std::fmt;

/// So many names are told of those that there are.
const MANY: usize = 40;

/// Where in the user's files something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it, or `command line`.
    pub file: String,
    /// Line from 1; 0 if it has none.
    pub line: u32,
    /// Column from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

impl Place {
    /// What the user typed to start the program, which has no lines.
    pub fn command_line() -> Place {
        Place { file: "command line".into(), line: 0, column: 0 }
    }
}

/// One thing that is wrong, told so that the user can put it right.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where.
    pub place: Option<Place>,
    /// What, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: &Place, message: impl Into<String>) -> Problem {
        Problem { place: Some(place.clone()), message: message.into(), hint: None }
    }

    /// A problem without a place in a file.
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { place: None, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do about it, if that is not said yet.
    pub fn or_hint(self, hint: impl Into<String>) -> Problem {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// Adds the nearest of the names there are, or all of them if none is near, first those that the wrong one is a
    /// part of. Of numbers all are told: the one whose digits are most alike need not be the one that is meant.
    pub fn did_you_mean<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        known.dedup();
        let number = |text: &str| text.parse::<f64>().ok();
        if number(wrong).is_some() && known.iter().all(|name| number(name).is_some()) {
            known.sort_by(|a, b| number(a).unwrap_or_default().total_cmp(&number(b).unwrap_or_default()));
            return self.there_are(&known);
        }
        match nearest(wrong, &known) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => {
                known.sort_by_key(|name| !name.contains(wrong));
                self.there_are(&known)
            }
        }
    }

    /// Adds what there is to choose from, if there is anything, as much as can be taken in.
    pub fn there_are(self, known: &[&str]) -> Problem {
        let (told, rest) = known.split_at(known.len().min(MANY));
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        if told.is_empty() { self } else { self.hint(format!("there are: {}{more}", told.join(", "))) }
    }

    /// Adds the nearest of the first names of some rows, of which there are `all`; or these names, each with its
    /// number, since names of rows hold commas.
    pub fn which_row(self, wrong: &str, names: &[String], all: usize) -> Problem {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        match nearest(wrong, &known) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None if names.is_empty() => self,
            None => {
                let rows: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("{i}: {name}")).collect();
                let more = if all > rows.len() { format!("; and {} more", all - rows.len()) } else { String::new() };
                self.hint(format!("there are: {}{more}", rows.join("; ")))
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All that is wrong with the user's input. Ends the program with code 2.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known name that is nearest to a wrong one, if one is near enough to be meant.
fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).max(1);
    let ranked = known.iter().map(|name| (strsim::osa_distance(&wrong.to_lowercase(), &name.to_lowercase()), *name));
    ranked.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        let hint = |wrong: &str, known: &[&str]| Problem::new("").did_you_mean(wrong, known.iter().copied()).hint;
        assert_eq!(hint("stpes", &["steps", "size"]).unwrap(), "did you mean `steps`?");
        assert_eq!(hint("colour", &["steps", "size"]).unwrap(), "there are: size, steps");
        assert_eq!(
            hint("skin", &["skin_scores", "points", "observed_skin"]).unwrap(),
            "there are: observed_skin, skin_scores, points"
        );
        let many: Vec<String> = (100..150).map(|i| format!("stage{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let said = hint("colour", &many).unwrap();
        assert!(
            said.starts_with("there are: stage100, stage101, ") && said.ends_with("stage139, and 10 more"),
            "{said}"
        );
        assert_eq!(hint("x", &[]), None);
        let alone = Problem::new("").did_you_mean("x", []).or_hint("leave it out");
        assert_eq!(alone.or_hint("or not").hint.unwrap(), "leave it out");
    }

    #[test]
    fn numbers_and_rows_are_listed() {
        let hint = |wrong: &str, known: &[&str]| Problem::new("").did_you_mean(wrong, known.iter().copied()).hint;
        assert_eq!(hint("7", &["10", "9", "0.5"]).unwrap(), "there are: 0.5, 9, 10");
        assert_eq!(hint("0.2", &["0.1"]).unwrap(), "there are: 0.1");
        assert_eq!(hint("1", &[]), None);
        let names = ["a=1, b=1".to_string(), "a=1, b=2".to_string()];
        let rows = |wrong: &str, all| Problem::new("").which_row(wrong, &names, all).hint.unwrap();
        assert_eq!(rows("99", 7), "there are: 0: a=1, b=1; 1: a=1, b=2; and 5 more");
        assert_eq!(rows("a=1, b=3", 2), "did you mean `a=1, b=1`?");
        assert_eq!(Problem::new("").which_row("x", &[], 0).hint, None);
    }
}
