//! `run:`: anybody's program as a stage. Parses the command line with its placeholders, and fills them for a task.
//!
//! `{column}` is a value of the row, or the path of its file, and in a stage that runs once for several rows all of
//! them, as words of their own; `{in}` and `{with.NAME}` are Arrow files, `{params}` a JSON file, `{param.NAME}` one of
//! `params:`, `{out}` the folder to write into; `{{` and `}}` are braces. Braces around anything that is not a name,
//! and `${...}`, are left alone: they are the program's. Knows no task directory but the paths it is given.

use crate::builtin::Columns;
use crate::error::Problem;
use crate::fields::Fields;
use crate::key::Facts;
use crate::shell::{self, Shell};
use crate::yaml::{At, Item, Node};
use manifests::Type;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Words that mean something to a shell alone.
const OPERATORS: [&str; 7] = [">", ">>", "<", "|", "&&", "||", ";"];

/// A piece of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// A value of the row.
    Column(String),
    /// The Arrow file of the unit's rows.
    In,
    /// The folder for results.
    Out,
    /// The JSON file of parameters.
    Params,
    /// One parameter.
    Param(String),
    /// The Arrow file of a constant.
    With(String),
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Text(text) => f.write_str(text),
            Piece::Column(name) => write!(f, "{{{name}}}"),
            Piece::In => f.write_str("{in}"),
            Piece::Out => f.write_str("{out}"),
            Piece::Params => f.write_str("{params}"),
            Piece::Param(name) => write!(f, "{{param.{name}}}"),
            Piece::With(name) => write!(f, "{{with.{name}}}"),
        }
    }
}

/// A program and how to call it.
#[derive(Clone, Debug)]
pub struct Command {
    /// The words; only one if a shell takes it.
    pub words: Vec<Vec<Piece>>,
    /// The shell that takes it, if one does.
    pub shell: Option<Shell>,
    /// Files whose content is part of the program.
    pub code: Vec<(String, PathBuf)>,
    /// The command as written, which is a fact of the key.
    pub written: String,
    /// Files beside the recipe that it names and that are not under `code:`.
    pub untold: Vec<String>,
    /// The length of each word, if one of them holds a blank: then the command as written does not tell where words
    /// end.
    lengths: Vec<usize>,
    /// Folder it runs in: the recipe's.
    pub dir: PathBuf,
}

impl Command {
    /// Understands the stanza's command.
    pub fn parse(what: &Item, fields: &mut Fields<'_>, dir: &Path) -> Option<Command> {
        let shell = fields.flag_or("shell", Shell::Posix, &[("sh", Shell::Posix), ("bash", Shell::Bash)]);
        let Some(texts) = texts(what, shell.is_some(), fields) else {
            // what else is wrong is found when there is a command
            fields.rest();
            return None;
        };
        let mut code = Vec::new();
        for (at, name) in fields.texts("code").unwrap_or_default() {
            let path = dir.join(&name);
            if !path.exists() {
                let place = fields.place(at);
                let problem = Problem::at(&place, format!("the file `{name}` under `code:` is not there"));
                fields.problems.push(problem.hint(format!("looked for {}", path.display())));
            }
            code.push((name, path));
        }
        let words: Vec<Vec<Piece>> = texts.iter().map(|(_, text)| pieces(text)).collect();
        let astray = |shell: Shell| words.iter().find_map(|word| shell::astray(word, shell));
        if let Some((piece, within)) = shell.and_then(astray) {
            let (stands, hint) = within.told(piece);
            fields.wrong(what.at, format!("`{piece}` stands {stands}"), hint);
        }
        let mut before = "";
        let mut untold: Vec<String> = Vec::new();
        for word in plain_words(&words, shell.is_some()) {
            let path = dir.join(word);
            let is_told = code.iter().any(|(_, told): &(String, PathBuf)| path.starts_with(told));
            // what is written is no input
            let is_written = shell.is_some() && before.ends_with('>') || WRITES.contains(&before);
            if !is_told && !is_written && !word.is_empty() && Path::new(word).is_relative() && path.is_file() {
                untold.push(word.into());
            }
            if !word.is_empty() {
                before = word;
            }
        }
        untold.sort_unstable();
        untold.dedup();
        let is_unclear = shell.is_none() && texts.iter().any(|(_, text)| text.contains([' ', '\u{1f}']));
        let lengths = if is_unclear { texts.iter().map(|(_, text)| text.len()).collect() } else { Vec::new() };
        let written = texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\u{1f}");
        Some(Command { words, shell, code, untold, written, lengths, dir: dir.into() })
    }

    /// All its placeholders.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.words.iter().flatten()
    }

    /// The columns it names.
    pub fn columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .pieces()
            .filter_map(|piece| match piece {
                Piece::Column(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Complains about placeholders that stand for nothing: known are the columns, the names of constants and of the
    /// stage's parameters, and what the recipe has under `params:`, which no placeholder stands for.
    pub fn check(
        &self,
        at: At,
        columns: &Columns,
        (with, params, of_recipe): (&[String], &BTreeMap<String, serde_json::Value>, &[(String, Item)]),
        many: bool,
        fields: &mut Fields<'_>,
    ) {
        for word in self.words.iter().filter(|word| many && self.shell.is_none() && word.len() > 1) {
            if let Some(Piece::Column(name)) = word.iter().find(|piece| matches!(piece, Piece::Column(_))) {
                let place = fields.place(at);
                let problem = Problem::at(&place, format!("`{{{name}}}` stands for the values of several rows here"));
                fields
                    .problems
                    .push(problem.hint("write it as a word of its own, or use `{in}`, the Arrow file of all rows"));
            }
        }
        let bare = |shell: Shell| self.words.iter().flat_map(move |word| shell::bare(word, shell));
        for (piece, place) in self.shell.into_iter().flat_map(bare) {
            let is_whole = match piece {
                Piece::Column(name) => columns.iter().any(|column| column.name == *name && column.ty == Type::I64),
                Piece::Param(name) => params.get(name).is_some_and(serde_json::Value::is_i64),
                _ => false,
            };
            if !is_whole {
                let message = format!(
                    "`{piece}` stands {} and is no whole number: the shell would execute parts of its value",
                    place.told()
                );
                fields.wrong(at, message, place.hint(piece));
            }
        }
        for piece in self.pieces() {
            let (wrong, known): (String, Vec<String>) = match piece {
                Piece::Column(name)
                    if !columns.iter().any(|column| column.name == *name)
                        && of_recipe.iter().any(|(param, _)| param == name) =>
                {
                    let message = format!("`{{{name}}}` is no column of the rows, but a parameter of the recipe");
                    fields.wrong(at, message, as_param(name));
                    continue;
                }
                Piece::Column(name) if !columns.iter().any(|column| column.name == *name) => {
                    let known = columns.iter().map(|column| column.name.clone());
                    (
                        format!("`{{{name}}}` is neither a column of the rows nor one of {{in}}, {{out}}, {{params}}"),
                        known.collect(),
                    )
                }
                Piece::With(name) if !with.contains(name) => {
                    (format!("`{{with.{name}}}` is not under `with:`"), with.to_vec())
                }
                Piece::Param(name) if !params.contains_key(name) => {
                    (format!("`{{param.{name}}}` is not under `params:`"), params.keys().cloned().collect())
                }
                _ => continue,
            };
            let name = match piece {
                Piece::Column(name) | Piece::With(name) | Piece::Param(name) => name.as_str(),
                _ => "",
            };
            let place = fields.place(at);
            let problem = Problem::at(&place, wrong).did_you_mean(name, known.iter().map(String::as_str));
            let braces = "for a brace of the program's own write `{{` or `}}`";
            let hint = problem.hint.as_ref().map_or(braces.to_string(), |hint| format!("{hint}; {braces}"));
            let problem = problem.hint(hint);
            fields.problems.push(problem);
        }
    }

    /// Its facts but the code, whose content the plan knows.
    pub fn facts(&self, facts: &mut dyn Facts) {
        facts.text("command", &self.written.replace('\u{1f}', " "));
        let words = self.shell.map_or_else(|| self.words.len().to_string(), |shell| shell.fact().into());
        facts.text("words", &words);
        // words are told apart also where they hold blanks
        if !self.lengths.is_empty() {
            let lengths: Vec<String> = self.lengths.iter().map(usize::to_string).collect();
            facts.text("lengths of words", &lengths.join(" "));
        }
    }

    /// The words to execute, with placeholders filled by `fill`: one text, or several for the rows of a unit.
    pub fn fill(&self, fill: impl Fn(&Piece) -> Vec<String>) -> Vec<String> {
        let mut argv = Vec::new();
        for word in &self.words {
            if let ([piece @ Piece::Column(_)], false) = (&word[..], self.shell.is_some()) {
                argv.extend(fill(piece));
                continue;
            }
            if let Some(shell) = self.shell {
                argv.push(shell::filled(word, shell, &fill));
                continue;
            }
            let text = word.iter().map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                other => fill(other).join(" "),
            });
            argv.push(text.collect::<String>());
        }
        let shell = self.shell.map_or(&[][..], Shell::words);
        shell.iter().map(|word| word.to_string()).chain(argv).collect()
    }
}

/// Behind these, programs are told where to write.
const WRITES: [&str; 4] = ["tee", "-o", "--out", "--output"];

/// The words of a command that hold no placeholder; of a shell's line what stands between blanks.
fn plain_words(words: &[Vec<Piece>], shell: bool) -> impl Iterator<Item = &str> {
    let texts = words.iter().filter(move |word| shell || word.len() == 1).flatten();
    let texts = texts.filter_map(|piece| if let Piece::Text(text) = piece { Some(text.as_str()) } else { None });
    texts.flat_map(move |text| {
        let apart: Box<dyn Iterator<Item = &str>> =
            if shell { Box::new(text.split([' ', '\n', ';', '\'', '"'])) } else { Box::new(std::iter::once(text)) };
        apart
    })
}

/// What to do about a parameter of the recipe that a program is to be given.
pub fn as_param(name: &str) -> String {
    format!("give it as `params: {{ {name}: \"${{{name}}}\" }}` and write `{{param.{name}}}`")
}

/// A text as one word for a POSIX shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:+@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The words of a command with their places; only one if a shell takes it.
fn texts(what: &Item, shell: bool, fields: &mut Fields<'_>) -> Option<Vec<(At, String)>> {
    let texts: Vec<(At, String)> = match &what.node {
        Node::Text(text) if shell => vec![(what.at, text.clone())],
        Node::Text(text) => match shell::split_words(text) {
            Ok(words) => {
                // `find` ends what it executes by one
                let is_find = words.iter().any(|word| ["-exec", "-execdir", "-ok"].contains(&word.text.as_str()));
                let is_operator = |text: &str| OPERATORS.contains(&text) && !(is_find && text == ";");
                let operator = |word: &&shell::Word| word.is_bare && is_operator(&word.text);
                if let Some(shell::Word { text, .. }) = words.iter().find(operator) {
                    let message = format!("no shell sees `{text}`: the program gets it as one of its words");
                    fields.wrong(what.at, message, format!("add `shell: true`, or quote it: `'{text}'`"));
                }
                words.into_iter().map(|word| (what.at, word.text)).collect()
            }
            Err(message) => {
                let place = fields.place(what.at);
                fields.problems.push(Problem::at(&place, message).hint("close it, or give a list of words"));
                return None;
            }
        },
        Node::List(_) if shell => {
            let hint = "write it as one text, or leave `shell:` out";
            fields.wrong(what.at, "with `shell:` the command is one text, not a list of words", hint);
            return None;
        }
        Node::List(items) => {
            let mut words = Vec::new();
            for item in items {
                match &item.node {
                    Node::Text(text) => words.push((item.at, text.clone())),
                    Node::Int(number) => words.push((item.at, number.to_string())),
                    Node::Float(number) => words.push((item.at, number.to_string())),
                    node => {
                        let hint = "words are text or numbers: put it in quotes";
                        fields.wrong(item.at, format!("a word of a command cannot be {}", node.what()), hint);
                        return None;
                    }
                }
            }
            words
        }
        node => {
            let message = format!("`run:` takes a command line or a list of words, not {}", node.what());
            fields.wrong(what.at, message, "for example `run: \"python3 fit.py {file} {out}/fit\"`");
            return None;
        }
    };
    if texts.is_empty() {
        fields.wrong(what.at, "the command is empty", "for example `run: \"python3 fit.py {file} {out}/fit\"`");
        return None;
    }
    Some(texts)
}

/// A word's text and placeholders.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("{{") || rest.starts_with("}}") {
            plain.push(c);
            rest = &rest[2..];
            continue;
        }
        let placeholder = rest.strip_prefix('{').filter(|_| !plain.ends_with('$')).and_then(|inner| {
            let end = inner.find('}')?;
            piece(&inner[..end]).map(|piece| (piece, &inner[end + 1..]))
        });
        match placeholder {
            Some((piece, after)) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(piece);
                rest = after;
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

fn piece(name: &str) -> Option<Piece> {
    let identifier = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    Some(match name {
        "in" => Piece::In,
        "out" => Piece::Out,
        "params" => Piece::Params,
        _ => match name.split_once('.') {
            Some(("with", name)) if identifier(name) => Piece::With(name.into()),
            Some(("param", name)) if identifier(name) => Piece::Param(name.into()),
            None if identifier(name) => Piece::Column(name.into()),
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_and_other_braces_left_alone() {
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(pieces("{out}/file"), [Piece::Out, text("/file")]);
        assert_eq!(pieces("{with.model}{x}"), [Piece::With("model".into()), Piece::Column("x".into())]);
        assert_eq!(pieces("awk '{print $1}' ${HOME} {{x}} {}"), [text("awk '{print $1}' ${HOME} {x} {}")]);
    }

    #[test]
    fn a_shell_sees_values_as_single_words() {
        let words = vec![pieces("cat {file} > {out}/x")];
        let (written, lengths) = (String::new(), Vec::new());
        let (code, untold) = (Vec::new(), Vec::new());
        let command = Command { words, shell: Some(Shell::Posix), code, untold, written, lengths, dir: PathBuf::new() };
        let filled = command.fill(|piece| vec![if *piece == Piece::Out { "/o".into() } else { "it's a b".into() }]);
        assert_eq!(filled, ["sh", "-ec", r"cat 'it'\''s a b' > /o/x"]);
    }

    /// The command of a stanza, and what is wrong with it.
    fn parsed(stanza: &str) -> (Option<Command>, Vec<Problem>) {
        let stanza = crate::yaml::parse("r", stanza).unwrap();
        let mut fields = Fields::of("r", "it", stanza, "{}").unwrap();
        let what = fields.take("run").unwrap();
        let command = Command::parse(&what, &mut fields, Path::new("."));
        (command, fields.finish())
    }

    #[test]
    fn an_operator_that_no_shell_sees_is_told_of() {
        for (line, operator) in [
            ("echo a > b", ">"),
            ("echo a >> b", ">>"),
            ("sort < b", "<"),
            ("a | b", "|"),
            ("a && b", "&&"),
            ("a || b", "||"),
            ("a ; b", ";"),
        ] {
            let (_, problems) = parsed(&format!("{{ run: \"{line}\" }}"));
            assert_eq!(problems.len(), 1, "{line}");
            assert!(problems[0].message.starts_with(&format!("no shell sees `{operator}`")), "{}", problems[0]);
            assert!(problems[0].hint.as_ref().unwrap().contains("shell: true"));
            assert!(parsed(&format!("{{ run: \"{line}\", shell: true }}")).1.is_empty(), "{line}");
        }
        for fine in [
            "\"test 3 '>' 2\"",
            "'grep \"|\" file'",
            "'find . -exec cat {} \\;'",
            "'find . -exec cat {} ;'",
            "[a, '>', b]",
            "a>b",
        ] {
            let (command, problems) = parsed(&format!("{{ run: {fine} }}"));
            assert!(command.is_some() && problems.is_empty(), "{fine}: {problems:?}");
        }
    }

    #[test]
    fn a_placeholder_within_quotes_of_a_shell_is_refused() {
        let problems = |line: &str, more: &str| {
            let line = line.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            parsed(&format!("{{ run: \"{line}\"{more} }}")).1
        };
        for line in [
            "echo '{x}'",
            "echo \"{x}\"",
            "echo \"a {param.n} b\"",
            "cat \"{out}/y\"",
            "echo \"$(echo '{x}')\"",
            "echo $(echo \"{x}\")",
            "echo \\{x}",
            "echo \"\\\"{x}\"",
            "# it's\necho '{x}'",
            "echo \"`pwd` {x}\"",
            "sh -c 'cat {in}'",
        ] {
            let found = problems(line, ", shell: true");
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            let (message, hint) = (&found[0].message, found[0].hint.as_ref().unwrap());
            assert!(
                message.contains("}` stands within quotes") && hint.contains("leave the quotes out"),
                "{}",
                found[0]
            );
        }
        assert!(problems("echo '{x}' \"{x}\"", "").is_empty(), "no shell sees it");
        for line in [
            "echo {x} '{{y}}' \"${HOME}\" > {out}/y",
            "echo 'a'{x}\"b\"",
            "echo \"$(wc -l < {x})\" \"$( (cat {x}) | wc -l)\" {x}",
            "echo \"`cat {x}`\" {x}",
            "echo \\\"{x}",
            "echo '\\' {x}",
            "echo $(( {x} + 1 )) # {x}",
            "echo $# {x} # it's\necho {x}",
        ] {
            let found = problems(line, ", shell: true");
            assert!(found.is_empty(), "{line}: {found:?}");
        }
    }

    #[test]
    fn only_whole_numbers_are_counted_with() {
        let problems = |ty: Type, param: serde_json::Value| {
            let command = parsed("{ run: 'echo $(({x} + {param.n}))', shell: true }").0.unwrap();
            let column = crate::builtin::PlannedColumn::sure("x", ty);
            let mut fields = Fields::new("r", "it", At::default(), Vec::new());
            let params = BTreeMap::from([("n".to_string(), param)]);
            command.check(At::default(), &vec![column], (&[], &params, &[]), false, &mut fields);
            fields.finish().len()
        };
        assert_eq!(problems(Type::I64, 3.into()), 0);
        assert_eq!(problems(Type::Str, "3".into()), 2);
        assert_eq!(problems(Type::F64, 0.5.into()), 2);
    }

    #[test]
    fn values_are_never_executed() {
        let dir = tempfile::tempdir().unwrap();
        let command = parsed("{ run: 'echo {x} \"$(echo {x})\" a{x}', shell: true }").0.unwrap();
        let argv = command.fill(|_| vec!["$(touch x) `touch x` ' \" ; touch x".into()]);
        let out = std::process::Command::new(&argv[0]).args(&argv[1..]).current_dir(dir.path()).output().unwrap();
        let value = "$(touch x) `touch x` ' \" ; touch x";
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim_end(), format!("{value} {value} a{value}"));
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn a_command_that_is_none_is_told_of_alone() {
        for (line, said) in
            [("\"\"", "is empty"), ("[]", "is empty"), ("'echo \"x'", "never closed"), ("7", "not an integer")]
        {
            let (command, problems) =
                parsed(&format!("{{ run: {line}, writes: {{ x: blob }}, needs: {{ threads: 1 }} }}"));
            assert!(command.is_none() && problems.len() == 1, "{line}: {problems:?}");
            assert!(problems[0].message.contains(said), "{}", problems[0]);
        }
    }

    #[test]
    fn words_with_blanks_are_other_words_and_all_others_keep_their_facts() {
        let facts = |stanza: &str| {
            let mut printer = crate::key::Printer::default();
            parsed(stanza).0.unwrap().facts(&mut printer);
            printer.0
        };
        let (one, other) = (facts("{ run: [./p.sh, a b, c] }"), facts("{ run: [./p.sh, a, b c] }"));
        assert_eq!(one[..2], other[..2]);
        assert_ne!(one, other);
        assert_ne!(one, facts("{ run: ./p.sh a b c }"));
        let fact = |name: &str, value: &str| (name.to_string(), value.to_string());
        // units are known by these
        assert_eq!(facts("{ run: ./p.sh a b c }"), [fact("command", "./p.sh a b c"), fact("words", "4")]);
        assert_eq!(facts("{ run: 'a > b', shell: true }"), [fact("command", "a > b"), fact("words", "shell")]);
        assert_eq!(facts("{ run: 'a > b', shell: sh }"), [fact("command", "a > b"), fact("words", "shell")]);
        assert_eq!(facts("{ run: 'a > b', shell: bash }"), [fact("command", "a > b"), fact("words", "bash")]);
    }

    #[test]
    fn a_parameter_of_the_recipe_is_no_placeholder() {
        let stanza = "{ run: 'p {steps} {x} {y}' }";
        let given = [("steps".to_string(), crate::yaml::parse("r", "100").unwrap())];
        let columns = vec![crate::builtin::PlannedColumn::sure("x", manifests::Type::I64)];
        let command = parsed(stanza).0.unwrap();
        let mut fields = Fields::new("r", "it", At::default(), Vec::new());
        command.check(At::default(), &columns, (&[], &BTreeMap::new(), &given), false, &mut fields);
        let problems = fields.finish();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].message.contains("`{steps}` is no column of the rows, but a parameter"), "{}", problems[0]);
        let hint = "give it as `params: { steps: \"${steps}\" }` and write `{param.steps}`";
        assert_eq!(problems[0].hint.as_deref(), Some(hint));
        assert!(problems[1].message.contains("`{y}` is neither"), "{}", problems[1]);
    }
}
