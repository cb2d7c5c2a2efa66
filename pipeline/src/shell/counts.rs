//! Where bash counts, or takes a name: there it executes what a subscript in the value says, quoted or not. Known are
//! the places where people write such things, not all that there are. Knows neither quotes nor documents: it is told
//! what a line says outside of them.

use crate::command::Piece;

/// A place where what is in a value might be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The shell counts there.
    Number(&'static str),
    /// Numbers are compared in `[[…]]`.
    Comparison,
    /// The name of a variable stands there.
    Name(&'static str),
    /// A `<<` document.
    Document,
}

impl Place {
    /// Where that is.
    pub fn told(self) -> &'static str {
        match self {
            Place::Number(told) | Place::Name(told) => told,
            Place::Comparison => "in a comparison of `[[…]]`",
            Place::Document => "in a `<<` document",
        }
    }

    /// What to do about a placeholder there.
    pub fn hint(self, piece: &Piece) -> String {
        let what = match self {
            // bash would look into a variable as well
            Place::Number(_) => format!(
                "see to it before that it is a whole number, `n={piece}; [ \"$n\" -eq \"$n\" ]`, and write `$n` there"
            ),
            Place::Comparison => "compare by `[ … ]`, which executes nothing".into(),
            Place::Name(_) => "name the variable in the line itself".into(),
            Place::Document => format!("put it into a variable before, `n={piece}`, and write `$n` there"),
        };
        format!("{what}; or let the program read `{{params}}` or `{{in}}`")
    }
}

/// What compares numbers in `[[…]]`.
const COMPARES: [&str; 6] = ["-eq", "-ne", "-lt", "-le", "-gt", "-ge"];
/// What asks for a name.
const ASKS: [&str; 2] = ["-v", "-R"];
/// What may stand before a command.
const BEFORE: [&str; 11] = ["if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "builtin"];
/// What takes assignments as its words.
const DECLARES: [&str; 5] = ["declare", "typeset", "local", "export", "readonly"];

/// What was read of a line, or of one within it, so far.
#[derive(Default)]
struct Level {
    text: String,
    /// Where in it each `${` that is open has its name.
    braces: Vec<usize>,
}

/// What was read so far, without what quotes make text of.
pub struct Read(Vec<Level>);

impl Read {
    /// Nothing yet.
    pub fn new() -> Read {
        Read(vec![Level::default()])
    }

    /// A character was read: now there are so many lines within one another. `is_text`: a quote or a backslash takes
    /// from it what it means, but for `${` within double quotes (`is_double`).
    pub fn push(&mut self, c: char, depth: usize, is_text: bool, is_double: bool) {
        if depth > self.0.len() {
            self.0.push(Level::default());
            return;
        }
        if depth < self.0.len() {
            self.0.truncate(depth);
            self.level().text.push('x');
            return;
        }
        let level = self.level();
        let may_open = !is_text || is_double;
        if may_open && c == '{' && level.text.ends_with('$') {
            level.text.push(c);
            level.braces.push(level.text.len());
        } else if let ('}', true, Some(open)) = (c, may_open, level.braces.last().copied()) {
            level.braces.pop();
            level.text.truncate(open - 2);
            level.text.push('x');
        } else if is_text && !(is_double && (c == '$' || !level.braces.is_empty())) {
            // what means nothing to a shell says the same quoted
            level.text.push(if c.is_ascii_alphanumeric() || "-_=+.,%/:".contains(c) { c } else { 'x' });
        } else {
            level.text.push(c);
        }
    }

    fn level(&mut self) -> &mut Level {
        self.0.last_mut().expect("there is always a line")
    }

    /// Where bash would execute parts of a value that stands here, before this text.
    pub fn place(&self, after: &str) -> Option<Place> {
        let Level { text, braces } = self.0.last()?;
        if let Some(place) = braces.last().and_then(|open| in_braces(&text[*open..])) {
            return Some(place);
        }
        if text.rfind("$[").is_some_and(|open| is_open(&text[open + 1..])) {
            return Some(Place::Number("within `$[…]`"));
        }
        let ends_word = |text: &str| text.is_empty() || text.ends_with(char::is_whitespace);
        if let Some(test) = in_test(text) {
            let last = test.split_whitespace().rev().nth(usize::from(!ends_word(test)));
            let next = after.split_whitespace().nth(usize::from(!after.starts_with(char::is_whitespace)));
            if last.is_some_and(|word| ASKS.contains(&word)) {
                return Some(Place::Name("behind `-v` of `[[…]]`"));
            }
            return [last, next].iter().flatten().any(|word| COMPARES.contains(word)).then_some(Place::Comparison);
        }
        in_command(command(text), after)
    }
}

/// Whether the first bracket of a text is open at its end.
fn is_open(text: &str) -> bool {
    text.matches('[').count() > text.matches(']').count()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What stands behind a `${` that is open.
fn in_braces(inner: &str) -> Option<Place> {
    let inner = inner.trim_start_matches(['#', '!']);
    let mut rest = inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_@*".contains(c));
    if rest.starts_with('[') {
        let mut open = 0;
        let end = rest.char_indices().find(|(_, c)| {
            open += i32::from(*c == '[') - i32::from(*c == ']');
            open == 0
        });
        let Some((end, _)) = end else { return Some(Place::Number("in a subscript")) };
        rest = &rest[end + 1..];
    }
    // `${s:-…}` is a word
    let is_part = rest.strip_prefix(':').is_some_and(|rest| !rest.starts_with(['-', '=', '+', '?']));
    is_part.then_some(Place::Number("in the place or length of `${…:…}`"))
}

/// What stands behind a `[[` that is open.
fn in_test(text: &str) -> Option<&str> {
    let is_word = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || ";&|(!".contains(c))
            && text[at + 2..].starts_with(char::is_whitespace)
    };
    let (open, _) = text.rmatch_indices("[[").find(|(at, _)| is_word(*at))?;
    let rest = &text[open + 2..];
    (!rest.split_whitespace().any(|word| word.trim_end_matches([';', '&', '|', ')']) == "]]")).then_some(rest)
}

/// The command that a text ends within.
fn command(text: &str) -> &str {
    let begins = |(at, c): &(usize, char)| {
        let before = text[..*at].chars().next_back();
        match c {
            ';' | '|' | '\n' | ')' => true,
            // of `2>&1` and `&>`, and of a list
            '&' => !matches!(before, Some('<' | '>')) && !text[at + 1..].starts_with('>'),
            '(' => before != Some('='),
            _ => false,
        }
    };
    text.char_indices().rfind(begins).map_or(text, |(at, _)| &text[at + 1..])
}

/// What a placeholder stands for among the words of a command.
fn in_command(text: &str, after: &str) -> Option<Place> {
    let at = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    // what its word begins with
    let word = &text[at..];
    let is_assignment = |word: &&str| word.split_once('=').is_some_and(|(name, _)| is_name(name.trim_end_matches('+')));
    let words = text[..at].split_whitespace().skip_while(|word| BEFORE.contains(word) || is_assignment(word));
    let words: Vec<&str> = words.collect();
    let name = words.first().copied().unwrap_or_default();
    if let Some(open) = text.rfind('[').filter(|open| is_open(&text[*open..])) {
        let begin = text[..open].rfind(|c: char| !is_name(c.encode_utf8(&mut [0; 4]))).map_or(0, |at| at + 1);
        let before = text[..begin].chars().next_back();
        let is_word = before.is_none_or(|c| c.is_whitespace() || c == '(');
        let is_element = begin < open || text[..open].contains("=(");
        let may_assign = text[..begin].split_whitespace().find(|word| !BEFORE.contains(word) && !is_assignment(word));
        let may_assign = may_assign.is_none_or(|name| DECLARES.contains(&name)) || text[..open].contains("=(");
        let behind = after.split_once(']').map_or("", |(_, behind)| behind);
        if is_word && is_element && may_assign && (behind.starts_with('=') || behind.starts_with("+=")) {
            return Some(Place::Number("in a subscript"));
        }
    }
    let last = words.last().copied().unwrap_or_default();
    if word.contains(['<', '>']) || word.is_empty() && last.ends_with(['<', '>']) {
        // a file
        return None;
    }
    let is_option = word.starts_with('-');
    match name {
        "let" => Some(Place::Number("in what `let` counts")),
        "declare" | "typeset" | "local" => {
            let is_flag = |word: &&str| word.starts_with('-') && word.contains(['i', 'n']);
            match words[1..].iter().any(is_flag) {
                true => Some(Place::Number("in what `declare -i` or `-n` takes")),
                false => (!is_option && !word.contains('=')).then_some(Place::Name("as a name of `declare`")),
            }
        }
        // the words of its options are none
        "read" if last.starts_with('-') && last.ends_with(['d', 'i', 'n', 'N', 'p', 't', 'u']) => None,
        "read" => (!is_option).then_some(Place::Name("as a name of `read`")),
        "unset" => (!is_option).then_some(Place::Name("as a name of `unset`")),
        "printf" if last == "-v" && words.len() == 2 || words.len() == 1 && word.starts_with("-v") => {
            Some(Place::Name("behind `-v` of `printf`"))
        }
        "[" | "test" if ASKS.contains(&last) => Some(Place::Name("behind `-v` of a test")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::pieces;
    use crate::shell::{Shell, astray, bare};

    #[test]
    fn places_where_bash_executes_a_value_are_known() {
        for (line, said) in [
            ("(( {x} > 1 ))", "within `((…))`"),
            ("if ((n = {x})); then true; fi", "within `((…))`"),
            ("for ((i = 0; i < {x}; i++)); do true; done", "within `((…))`"),
            ("(( $((1)) + {x} ))", "within `((…))`"),
            ("echo $(( (1) + {x} ))", "within `$((…))`"),
            ("echo $[{x}] $[1]", "within `$[…]`"),
            ("echo $[ 1 + {x} ]", "within `$[…]`"),
            ("[[ {x} -gt 1 ]]", "in a comparison"),
            ("[[\t{x} -gt 1 ]]", "in a comparison"),
            ("if [[\n{x} -gt 1 ]]; then true; fi", "in a comparison"),
            ("[[ 1 -eq {x} && a == b ]]", "in a comparison"),
            ("[[ a == b && 1+{x}+1 -eq 2 ]]", "in a comparison"),
            ("[[ a ]] && [[ 1 -eq 1+{x} ]]", "in a comparison"),
            ("[[ -v {x} ]]", "behind `-v`"),
            ("[[ ! -v a[{x}] ]]", "behind `-v`"),
            ("[ -v {x} ]", "behind `-v`"),
            ("if ! test -v {x}; then true; fi", "behind `-v`"),
            ("printf -v {x} %s a", "behind `-v` of `printf`"),
            ("read {x} < {out}/a", "as a name of `read`"),
            ("true | while read -r a {x}; do true; done", "as a name of `read`"),
            ("unset {x}", "as a name of `unset`"),
            ("declare {x}", "as a name of `declare`"),
            ("let n={x}", "in what `let` counts"),
            ("A=1 let \"n = \"{x}", "in what `let` counts"),
            ("echo \"$(let n={x})\"", "in what `let` counts"),
            ("declare -i n={x}", "in what `declare -i`"),
            ("typeset -ri n={x}", "in what `declare -i`"),
            ("f() { local -i n={x}; }", "in what `declare -i`"),
            ("echo ${s:{x}}", "in the place or length"),
            ("echo \"${s:\"{x}\"}\"", "in the place or length"),
            ("echo ${s: -{x}:2} ${s:-a}", "in the place or length"),
            ("echo ${s:0:{x}}", "in the place or length"),
            ("echo ${b[1]:{x}}", "in the place or length"),
            ("echo ${b[{x}]}", "in a subscript"),
            ("echo ${b[ {x} ]}", "in a subscript"),
            ("echo ${#b[0+{x}]}", "in a subscript"),
            ("echo ${b[c[0]+{x}]}", "in a subscript"),
            ("a[{x}]=1", "in a subscript"),
            ("a[ 1 + {x} ]+=1", "in a subscript"),
            ("B=1 a[{x}]=1", "in a subscript"),
            ("declare a[{x}]=1", "in a subscript"),
            ("a=(1 [{x}]=2)", "in a subscript"),
        ] {
            let pieces = pieces(line);
            let found = bare(&pieces, Shell::Bash);
            let told: Vec<&str> =
                found.iter().filter(|(piece, _)| **piece != Piece::Out).map(|(_, place)| place.told()).collect();
            assert!(matches!(&told[..], [one] if one.starts_with(said)), "{line}: {found:?}");
            let is_of_any = line.contains("$((");
            assert_eq!(bare(&pieces, Shell::Posix).len(), usize::from(is_of_any && !line.starts_with("((")), "{line}");
        }
    }

    #[test]
    fn places_where_bash_executes_nothing_are_words() {
        for line in [
            "[[ {x} == a* ]] && [[ a != {x} ]] && test {x} -gt 1",
            "grep {x} <<< $'it\\'s' {x}; ( (cat {x}) )",
            "diff <(sort {x}) <(sort {x}) |& cat; echo ((1)) {x}",
            "[[ 1 -eq 1 ]]; echo {x} -eq",
            "if [[ 1 -eq 1 ]]; then echo {x} -eq; fi",
            "ls f[{x}]* f[{x}]; for f in a[{x}]; do cat $f; done",
            "echo a[{x}]=1; n=a[{x}]",
            "echo \"[[ \" ; test {x} -eq 1",
            "echo '[[ ' {x} -eq 1 # [[ \n[ {x} -eq 1 ]",
            "echo \"let \" {x} 'read' {x}",
            "echo ${s:-{x}} ${s:+{x}} ${s#{x}} ${s//[{x}]/a} ${b[1]} {x}",
            "read -r a b <<< {x}; read -p {x} c < {x} 2>&1",
            "let n=1 > {out}/y; declare n={x}; local m={x}; export {x}",
            "printf %s {x} -v {x}; [ -f {x} ] && test -n {x}",
            "let n=1; echo {x} | cat {x} && cat {x}",
            "n=$(let m=1) && echo {x}",
        ] {
            let pieces = pieces(line);
            assert!(astray(&pieces, Shell::Bash).is_none(), "{line}");
            assert!(bare(&pieces, Shell::Bash).is_empty(), "{line}: {:?}", bare(&pieces, Shell::Bash));
        }
    }

    /// The words that are proposed where bash counts.
    #[test]
    fn what_the_hint_proposes_executes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hint = Place::Number("").hint(&Piece::Column("x".into()));
        let line = hint.split('`').nth(1).unwrap().replace("{x}", "'a[$(touch it)]'") + "; echo $((n + 1))";
        let out = std::process::Command::new("bash").args(["-ec", &line]).current_dir(dir.path()).output().unwrap();
        assert!(!out.status.success() && !dir.path().join("it").exists(), "{line}");
    }
}
