//! What can be wrong with files of a data set: one sentence of where, what was found and what was expected, and a hint.
//!
//! Knows no format; readers say what a place is called in theirs.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;

/// What is wrong with a file or folder, or with what several of them say together.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: String,
    hint: Cow<'static, str>,
}

impl Fault {
    /// What the user can do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// A file or folder cannot be read, and the operating system or a decoder said why.
    pub(crate) fn unreadable(path: &Path, reason: impl Display) -> Fault {
        Fault::unfit(format!("{}: {reason}", path.display()), "does it exist, and may you read it?")
    }

    /// A file or folder cannot be written, and the operating system said why.
    pub(crate) fn unwritable(path: &Path, reason: impl Display) -> Fault {
        Fault::unfit(format!("{}: {reason}", path.display()), "may you write there, and is there room on the disk?")
    }

    /// A file or folder as a whole is another one than it should be.
    pub(crate) fn whole(
        path: &Path,
        found: impl Display,
        expected: impl Display,
        hint: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault::unfit(format!("{}: found {found}, expected {expected}", path.display()), hint)
    }

    /// Something is missing, damaged or not known in a place of a file: a line, a byte.
    pub(crate) fn at(
        path: &Path,
        place: impl Display,
        found: impl Display,
        expected: impl Display,
        hint: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault::unfit(format!("{}, {place}: found {found}, expected {expected}", path.display()), hint)
    }

    /// The same of a field, or an array.
    pub(crate) fn field(
        path: &Path,
        field: impl Display,
        found: impl Display,
        expected: impl Display,
        hint: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault::at(path, format_args!("field `{field}`"), found, expected, hint)
    }

    /// Things do not fit together: a sentence.
    pub(crate) fn unfit(what: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Fault {
        Fault { what: what.into(), hint: hint.into() }
    }

    /// The same with something better to do about it.
    pub(crate) fn advised(self, hint: impl Into<Cow<'static, str>>) -> Fault {
        Fault { hint: hint.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_where_and_what() {
        let path = Path::new("a/b.json");
        let said = |fault: Fault| (fault.to_string(), fault.hint().to_owned());
        let expected = "a/b.json, line 3: found 2 numbers, expected 3";
        assert_eq!(said(Fault::at(path, "line 3", "2 numbers", 3, "h")), (expected.to_owned(), "h".to_owned()));
        let field = Fault::field(path, "w", "nothing", "a width", "h").advised(format!("as {}", "h"));
        let expected = "a/b.json, field `w`: found nothing, expected a width";
        assert_eq!(said(field), (expected.to_owned(), "as h".to_owned()));
        assert_eq!(said(Fault::whole(path, "no file", "one", "h")).0, "a/b.json: found no file, expected one");
        let both = [Fault::unreadable(path, "no"), Fault::unwritable(path, "no")].map(said);
        assert!(both[0].0 == "a/b.json: no" && both[1].0 == both[0].0 && both[1].1.contains("write"), "{both:?}");
    }
}
