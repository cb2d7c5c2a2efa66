//! Lines as a shell reads them: where words end, and what it makes of placeholders: their values are put in as quoted
//! words, and only where a word may stand does it take them for what they are. Knows neither stanzas nor values.

mod counts;

use crate::command::{Piece, quote};
use counts::{Place, Read};

/// A shell that a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// The system's, which need not know of more than POSIX does.
    Posix,
    /// Bash: what fails within a pipe fails the line.
    Bash,
}

impl Shell {
    /// Its words before a line.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Shell::Posix => &["sh", "-ec"],
            Shell::Bash => &["bash", "-eo", "pipefail", "-c"],
        }
    }

    /// Its words before a file of lines.
    pub fn words_of_file(self) -> &'static [&'static str] {
        match self {
            Shell::Posix => &["sh", "-e"],
            Shell::Bash => &["bash", "-eo", "pipefail"],
        }
    }

    /// How keys know it.
    pub fn fact(self) -> &'static str {
        match self {
            Shell::Posix => "shell",
            Shell::Bash => "bash",
        }
    }
}

/// A word of a command line.
#[derive(Debug, PartialEq)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Nothing of it was quoted.
    pub is_bare: bool,
}

impl Default for Word {
    fn default() -> Word {
        Word { text: String::new(), is_bare: true }
    }
}

/// Splits a command line at blanks; quotes hold words together.
///
/// # Errors
/// If one is never closed.
pub fn split_words(text: &str) -> Result<Vec<Word>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Word>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (None, '\'' | '"') => {
                quoted = Some(c);
                word.get_or_insert_default().is_bare = false;
            }
            (Some(quote), c) if c == quote => quoted = None,
            (None | Some('"'), '\\') => {
                let next = chars.next();
                if next == Some('\n') {
                    // the line goes on
                    continue;
                }
                let word = word.get_or_insert_default();
                word.is_bare = false;
                if quoted.is_some() && !next.is_some_and(|next| "$`\"\\".contains(next)) {
                    word.text.push('\\');
                }
                word.text.extend(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().text.push(c),
        }
    }
    if let Some(quote) = quoted {
        return Err(format!("the command has a `{quote}` that is never closed"));
    }
    words.extend(word);
    Ok(words)
}

/// What a shell is within, at a place of its line.
#[derive(Clone, Debug)]
pub enum Within {
    /// `'`.
    Single,
    /// `$'` of bash, in which a backslash is one.
    Ansi,
    /// `"`.
    Double,
    /// `#` to the end of the line.
    Comment,
    /// `` ` ``, and whether others stand within.
    Backquotes(bool),
    /// `$(`, and so many parentheses that were opened since.
    Parentheses(usize),
    /// `$((`, likewise, or `((` of bash, and which of them it is.
    Arithmetic(usize, &'static str),
    /// What stands below a `<<` until its last line: that line, and the one that is being read.
    Document(Document),
}

impl Within {
    /// Where a placeholder stands that stands in this, and what to do.
    pub fn told(&self, piece: &Piece) -> (&'static str, String) {
        match self {
            Within::Backquotes(_) => {
                ("within backquotes in backquotes, which take its value apart", format!("write `$(…{piece}…)` instead"))
            }
            Within::Arithmetic(..) => (
                "where a shell counts within backquotes, and would execute parts of its value",
                "write `$(…)` instead of the backquotes around it".into(),
            ),
            _ => (
                "within quotes of the shell, which would take its value apart",
                format!(
                    "leave the quotes out around it: a value is always one word there, as in `'some text '{piece}`"
                ),
            ),
        }
    }
}

/// What a `<<` announces.
#[derive(Clone, Debug, Default)]
pub struct Document {
    end: String,
    /// Lines may begin with tabs (`<<-`).
    is_indented: bool,
    /// The shell takes its text as it is.
    is_quoted: bool,
    line: String,
}

/// The first placeholder that a shell would not see as a word of its own, and what that stands in: the quotes that are
/// put around its value would end those it stands in, be taken for text because of a backslash, or not be seen as
/// quotes.
pub fn astray(pieces: &[Piece], shell: Shell) -> Option<(&Piece, Within)> {
    stands(pieces, shell).into_iter().find_map(|(piece, stand)| match stand {
        Stand::Astray(within) => Some((piece, within)),
        _ => None,
    })
}

/// The placeholders where no word is but only what a whole number, or a path of ours, can be put in as it is, and where
/// that is: where the shell counts, or in a `<<` document.
pub fn bare(pieces: &[Piece], shell: Shell) -> Vec<(&Piece, Place)> {
    let is_path = |piece: &Piece| matches!(piece, Piece::In | Piece::Out | Piece::Params | Piece::With(_));
    let bare = |(piece, stand)| match stand {
        Stand::InArithmetic(place) => Some((piece, place)),
        Stand::InDocument { .. } if !is_path(piece) => Some((piece, Place::Document)),
        _ => None,
    };
    stands(pieces, shell).into_iter().filter_map(bare).collect()
}

/// A line with the values of its placeholders as the shell has to have them.
pub fn filled(pieces: &[Piece], shell: Shell, values: impl Fn(&Piece) -> Vec<String>) -> String {
    let mut stands = stands(pieces, shell).into_iter();
    let value = |piece: &Piece| values(piece).iter().map(|text| quote(text)).collect::<Vec<_>>().join(" ");
    let one = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        piece => match stands.next() {
            // where quotes would be text; what may stand here is asked before
            Some((_, Stand::InDocument { is_quoted: true })) => values(piece).join(" "),
            Some((_, Stand::InDocument { is_quoted: false })) => {
                let escaped = |c: char| if "\\$`".contains(c) { vec!['\\', c] } else { vec![c] };
                values(piece).join(" ").chars().flat_map(escaped).collect()
            }
            // which take one backslash away before the line within is read
            Some((_, Stand::InBackquotes)) => value(piece).replace('\\', "\\\\").replace('`', "\\`"),
            // which a line's end would end
            Some((_, Stand::InComment)) => value(piece).replace('\n', " "),
            _ => value(piece),
        },
    };
    pieces.iter().map(one).collect()
}

/// How a placeholder stands in a line.
enum Stand {
    Word,
    InBackquotes,
    InComment,
    /// The shell counts there, and executes what a subscript in the value says.
    InArithmetic(Place),
    InDocument {
        is_quoted: bool,
    },
    Astray(Within),
}

/// The placeholders and how each stands.
fn stands(pieces: &[Piece], shell: Shell) -> Vec<(&Piece, Stand)> {
    use Within::{Ansi, Arithmetic, Backquotes, Comment, Double, Parentheses, Single};
    let is_bash = shell == Shell::Bash;
    let mut read = Read::new();
    let mut found = Vec::new();
    let (mut within, mut is_escaped, mut before): (Vec<Within>, bool, char) = (Vec::new(), false, ' ');
    // documents that begin with the next line
    let mut announced: Vec<Document> = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        let Piece::Text(text) = piece else {
            let after =
                || pieces[place + 1..].iter().map(|piece| if let Piece::Text(text) = piece { text } else { "x" });
            let counted = if is_bash { read.place(&after().collect::<String>()) } else { None };
            read.push('x', depth(&within), true, false);
            let odd = within.last().filter(|one| !matches!(one, Parentheses(_) | Backquotes(_)));
            let mut backquotes = within.iter().filter(|one| matches!(one, Backquotes(_)));
            let stand = match (odd, backquotes.next(), backquotes.next()) {
                _ if std::mem::take(&mut is_escaped) => Stand::Astray(Double),
                (Some(Comment), ..) => Stand::InComment,
                (Some(Within::Document(document)), ..) => Stand::InDocument { is_quoted: document.is_quoted },
                (Some(Arithmetic(_, told)), None, _) => Stand::InArithmetic(Place::Number(told)),
                (Some(odd), ..) => Stand::Astray(odd.clone()),
                (None, ..) if let Some(place) = counted => Stand::InArithmetic(place),
                (None, Some(one @ Backquotes(true)), _) | (None, Some(one), Some(_)) => Stand::Astray(one.clone()),
                (None, Some(_), None) => Stand::InBackquotes,
                (None, None, _) => Stand::Word,
            };
            found.push((piece, stand));
            before = 'x';
            continue;
        };
        for (at, c) in text.char_indices() {
            if let Some(Within::Document(document)) = within.last_mut() {
                let line = if document.is_indented { document.line.trim_start_matches('\t') } else { &document.line };
                // which the shell joins with the next one
                let goes_on =
                    !document.is_quoted && document.line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
                if c != '\n' || goes_on {
                    document.line.push(c);
                } else if line == document.end {
                    within.pop();
                    before = c;
                } else {
                    document.line.clear();
                }
                continue;
            }
            let was_escaped = std::mem::take(&mut is_escaped);
            if c == '\n' && !was_escaped && !matches!(within.last(), Some(Single | Double | Ansi)) {
                if matches!(within.last(), Some(Comment)) {
                    within.pop();
                }
                read.push(c, depth(&within), false, false);
                within.extend(announced.drain(..).rev().map(Within::Document));
                before = c;
                continue;
            }
            if c == '<'
                && before != '<'
                && !matches!(within.last(), Some(Single | Double | Ansi | Comment | Arithmetic(..)))
            {
                announced.extend(document(&text[at..]));
            }
            let is_double = matches!(within.last(), Some(Double));
            let is_text = |within: &[Within]| matches!(within.last(), Some(Single | Double | Ansi | Arithmetic(..)));
            let (was_text, count) = (was_escaped || is_text(&within), within.len());
            match (within.last_mut(), c) {
                (Some(Backquotes(nested)), '`') if was_escaped => *nested = !*nested,
                _ if was_escaped => {}
                (Some(Single | Ansi), '\'') | (Some(Double), '"') | (Some(Backquotes(_)), '`') => {
                    within.pop();
                }
                (Some(Parentheses(0) | Arithmetic(0, _)), ')') => {
                    within.pop();
                }
                (Some(Single | Comment), _) => {}
                (_, '\\') => is_escaped = true,
                (Some(Ansi), _) => {}
                (_, '"') => within.push(Double),
                // within double quotes these begin a line of their own
                (_, '`') => within.push(Backquotes(false)),
                (_, '(') if before == '$' => {
                    let is_arithmetic = text[at..].starts_with("((");
                    within.push(if is_arithmetic { Arithmetic(0, "within `$((…))`") } else { Parentheses(0) });
                }
                (Some(Double), _) => {}
                (_, '(') if is_bash && text[at..].starts_with("((") => within.push(Arithmetic(0, "within `((…))`")),
                (_, '\'') => within.push(if is_bash && before == '$' { Ansi } else { Single }),
                (_, '#') if before.is_whitespace() || ";|&()".contains(before) => within.push(Comment),
                (Some(Parentheses(open) | Arithmetic(open, _)), '(') => *open += 1,
                (Some(Parentheses(open) | Arithmetic(open, _)), ')') => *open -= 1,
                _ => {}
            }
            // quotes and backslashes are nothing of their word
            let is_sign = is_escaped || "'\"".contains(c) && within.len() != count;
            if !is_sign && !matches!(within.last(), Some(Comment)) {
                read.push(c, depth(&within), was_text || is_text(&within), is_double && !was_escaped);
            }
            before = if was_escaped { 'x' } else { c };
        }
    }
    found
}

/// How many lines there are within one another, where a shell is within these.
fn depth(within: &[Within]) -> usize {
    1 + within.iter().filter(|one| matches!(one, Within::Parentheses(_) | Within::Backquotes(_))).count()
}

/// The document that a `<<` announces; none if it is another operator.
fn document(text: &str) -> Option<Document> {
    let rest = text.strip_prefix("<<").filter(|rest| !rest.starts_with('<'))?;
    let (rest, is_indented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let (mut end, mut quote, mut is_quoted) = (String::new(), None, false);
    for c in rest.trim_start_matches([' ', '\t']).chars() {
        match (quote, c) {
            (None, '\'' | '"') => (quote, is_quoted) = (Some(c), true),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() || ";|&()<>".contains(c) => break,
            (None, '\\') => is_quoted = true,
            _ => end.push(c),
        }
    }
    (!end.is_empty()).then(|| Document { end, is_indented, is_quoted, line: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::pieces;

    #[test]
    fn words_are_split_as_people_expect() {
        let split = |text: &str| split_words(text).unwrap().into_iter().map(|word| word.text).collect::<Vec<_>>();
        let check = |text: &str, expected: &[&str]| assert_eq!(split(text), expected, "{text}");
        check("python3 fit.py  {in} {out}", &["python3", "fit.py", "{in}", "{out}"]);
        check(r#"echo "a b" 'c "d"' e\ f """#, &["echo", "a b", "c \"d\"", "e f", ""]);
        // as POSIX has it: within double quotes a backslash is one, but before these
        check(r#"grep "a\.b\n" "\$x \` \" \\""#, &["grep", r"a\.b\n", r#"$x ` " \"#]);
        check("a \\\n  b\\\nc \"d\\\ne\"", &["a", "bc", "de"]);
        assert!(split_words("echo 'a").unwrap_err().contains("never closed"));
    }

    #[test]
    fn a_placeholder_where_a_shell_sees_no_words_is_astray() {
        for (line, said) in [
            ("echo `echo \\`cat {x}\\``", "within backquotes"),
            ("echo `echo $(echo `cat {x}`)`", "within backquotes"),
            ("echo `echo '{x}'`", "within quotes"),
            ("echo `echo $(({x} + 1))`", "where a shell counts within backquotes"),
        ] {
            let pieces = pieces(line);
            let (piece, within) = astray(&pieces, Shell::Posix).unwrap_or_else(|| panic!("{line}"));
            assert!(within.told(piece).0.starts_with(said), "{line}: {}", within.told(piece).0);
        }
        for line in [
            "echo $(( 1 + (2) )) {x} $((1)) $(( $(cat {x}) + 1 ))",
            "cat <<EOF > {out}/y\nit's\nEOF\necho {x}",
            "cat <<-'A B'; cat <<E\n'\n\tA B\n'\nE\necho {x}",
            "grep a <<< {x}; echo '<<E' $((1 << 2))\necho {x}",
            "echo `pwd` {x} # it's\necho {x}",
            "echo `cat {x}` \"`cat {x}`\" `echo \\`pwd\\` $(cat {x})`",
        ] {
            assert!(astray(&pieces(line), Shell::Posix).is_none(), "{line}");
        }
    }

    #[test]
    fn what_is_counted_with_is_known() {
        let line = pieces("echo {a} $(( {x} + 1 )) $((1 + (2 + {param.n}))) $(($(cat {b}) + 1)) {c}");
        let found: Vec<&Piece> = bare(&line, Shell::Posix).into_iter().map(|(piece, _)| piece).collect();
        assert_eq!(found, [&Piece::Column("x".into()), &Piece::Param("n".into())]);
        for line in [
            "cat <<EOF\n{x}\nEOF",
            "cat > {out}/y <<-'EOF' && echo {y}\nit's {x} in {out}\n\tEOF\n{y}",
            "cat <<A <<B\nB\nA\n{x}\nB\n{y}",
            "cat <<\\A\n A\n{x}\nA",
            "cat <<A\nhi \\\nA\n{x}\nA",
            "cat <<'A'\nhi \\\nA\n{y} <<A\n{x}",
        ] {
            let pieces = pieces(line);
            let found: Vec<_> =
                bare(&pieces, Shell::Posix).into_iter().filter(|(_, place)| *place == Place::Document).collect();
            assert!(matches!(&found[..], [(Piece::Column(name), _)] if name == "x"), "{line}: {found:?}");
        }
    }

    #[test]
    fn a_path_in_a_document_is_itself() {
        let path = "/a $b/`c` it's";
        for (line, said) in [("cat <<E\n{out}\nE\n", path), ("cat <<'E'\n{out}\nE\n", path)] {
            let line = filled(&pieces(line), Shell::Posix, |_| vec![path.into()]);
            let out = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout).trim_end(), said, "{line}");
        }
    }

    #[test]
    fn a_comment_stays_one() {
        assert_eq!(
            filled(&pieces("true # {x}\necho"), Shell::Posix, |_| vec!["a\ntouch x".into()]),
            "true # 'a touch x'\necho"
        );
    }

    #[test]
    fn a_value_is_itself_in_backquotes_too() {
        let value = "it's $(touch x) `touch x` \\ \\\\ \\' \" ; touch x";
        let dir = tempfile::tempdir().unwrap();
        for line in ["printf %s \"`printf %s {x}`\"", "printf %s \"$(printf %s \"`printf %s {x}`\")\""] {
            let line = filled(&pieces(line), Shell::Posix, |_| vec![value.into()]);
            let out = std::process::Command::new("sh").args(["-c", &line]).current_dir(dir.path()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout), value, "{line}");
        }
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn a_quote_of_bash_is_known_of_bash_alone() {
        // a quote behind a backslash ends nothing there
        let line = pieces("echo $'it\\'s {x}'");
        assert!(matches!(astray(&line, Shell::Bash), Some((_, Within::Ansi))));
    }
}
