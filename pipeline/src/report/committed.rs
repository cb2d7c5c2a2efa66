//! Whether a file that somebody committed still holds the tables that a run gives. Text around the tables is nobody's
//! business here; what differs is told line by line. Knows no run.

use super::splice::{fenced, heading, note_below};
use super::writers::{Format, Titled, marks, tolerances, write};

/// A cell of a file: its text without marks, and whether it is marked as the best.
#[derive(Clone, Debug, PartialEq)]
struct Cell {
    text: String,
    best: bool,
}

/// A line of a table in a file.
#[derive(Clone, Debug)]
struct Line {
    /// As it stands there.
    raw: String,
    cells: Vec<Cell>,
}

/// A table in a file.
struct Found {
    /// What stands above it as its title.
    title: Option<String>,
    /// The first is its head.
    lines: Vec<Line>,
    /// The line in italics below it, which says how it came about.
    note: Option<String>,
}

/// Tells what differs between tables and a file, a line each, `-` for what the file has and `+` for what it should
/// have; empty if nothing does. A table is the one of its title and head; if there is none, that of its head. Numbers
/// may differ by their column's tolerance, and the mark of the best may stand at any that is no farther than that from
/// the best of those it is compared with.
///
/// # Errors
/// If the tables cannot be written.
pub fn differences(title: &str, tables: &[Titled], committed: &str, format: Format) -> anyhow::Result<Vec<String>> {
    let there = parse(committed, format);
    let mut wanted = Vec::new();
    for titled in tables {
        let own = parse(&write(title, std::slice::from_ref(titled), format)?, format);
        wanted.extend(own.into_iter().next().map(|own| (titled, own)));
    }
    let mut places: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut taken = vec![false; there.len()];
    for by_title in [true, false] {
        for (place, (titled, own)) in places.iter_mut().zip(&wanted).filter(|(place, _)| place.is_none()) {
            let named = |old: &Found| old.title == own.title || old.title.as_ref() == Some(&titled.title);
            let same = |old: &Found| old.lines[0].cells == own.lines[0].cells && (!by_title || named(old));
            *place = (0..there.len()).find(|&at| !taken[at] && same(&there[at]));
            if let Some(at) = *place {
                taken[at] = true;
            }
        }
    }
    let mut found = Vec::new();
    for ((titled, own), place) in wanted.iter().zip(places) {
        let Some(at) = place else {
            found.push(format!("there is no table with the head of `{}`:", titled.title));
            found.extend(own.lines.iter().map(|line| format!("+ {}", line.raw)));
            continue;
        };
        let marks = marks(&titled.table, format);
        let [old, fresh] = [&there[at], own].map(|table| marked(&table.lines, &marks));
        let mut lines = compare(&old, &fresh, &tolerances(&titled.table, format), titled.table.shared);
        // a file may do without, but not say something else
        if let Some(old) = there[at].note.as_ref().filter(|note| own.note.as_ref() != Some(*note)) {
            lines.push(format!("- {old}"));
            lines.extend(own.note.iter().map(|fresh| format!("+ {fresh}")));
        }
        if !lines.is_empty() {
            found.push(format!("`{}` differs:", titled.title));
            found.extend(lines);
        }
    }
    Ok(found)
}

/// `shared`: how many of the first cells say the same in rows that are compared with each other.
fn compare(old: &[Line], fresh: &[Line], tolerances: &[f64], shared: usize) -> Vec<String> {
    let mut left: Vec<usize> = (1..old.len()).collect();
    let mut out = Vec::new();
    let mut order = Vec::new();
    // which line of the file each fresh line is, by the cells that are no numbers
    let partners: Vec<Option<usize>> = fresh[1..]
        .iter()
        .map(|line| {
            let at = left.iter().position(|&k| name(&old[k]) == name(line))?;
            Some(left.remove(at))
        })
        .collect();
    for (line, partner) in fresh[1..].iter().zip(&partners) {
        let Some(k) = partner else {
            out.push(format!("+ {}", line.raw));
            continue;
        };
        order.push(*k);
        let of_section = |other: &Line| other.cells.iter().zip(&line.cells).take(shared).all(|(a, b)| a.text == b.text);
        let rivals: Vec<(&Line, Option<&Line>)> = fresh[1..]
            .iter()
            .zip(&partners)
            .filter(|(other, _)| of_section(other))
            .map(|(other, partner)| (other, partner.map(|k| &old[k])))
            .collect();
        let wrong = |j: usize| {
            let tolerance = tolerances.get(j).copied().unwrap_or(0.0);
            let (a, b) = (&old[*k].cells[j], &line.cells[j]);
            !near(&a.text, &b.text, tolerance) || !marks_agree(&rivals, (a, b), j, tolerance)
        };
        if old[*k].cells.len() != line.cells.len() || (0..line.cells.len()).any(wrong) {
            out.push(format!("- {}", old[*k].raw));
            out.push(format!("+ {}", line.raw));
        }
    }
    out.extend(left.iter().map(|&k| format!("- {}", old[k].raw)));
    if !order.is_sorted() {
        out.push("the rows stand in another order".into());
    }
    out
}

/// What tells a row from the others: its cells that hold no number.
fn name(line: &Line) -> Vec<&str> {
    let told = |text: &&str| parts(text).iter().all(Result::is_err) && !["n/a", "–", "--", ""].contains(text);
    line.cells.iter().map(|cell| cell.text.as_str()).filter(told).collect()
}

/// Whether a mark stands where it may. `rivals`: the rows that are compared with this one, each beside what the file
/// has of it.
fn marks_agree(rivals: &[(&Line, Option<&Line>)], (a, b): (&Cell, &Cell), column: usize, tolerance: f64) -> bool {
    if a.best == b.best {
        return true;
    }
    let value = |cell: &Cell| parts(&cell.text).into_iter().find_map(Result::ok);
    let marked = rivals.iter().filter(|(line, old)| {
        let old = old.and_then(|old| old.cells.get(column));
        if a.best { line.cells[column].best } else { old.is_some_and(|cell| cell.best) }
    });
    let this = value(b);
    tolerance > 0.0
        && marked
            .filter_map(|(line, _)| value(&line.cells[column]))
            .any(|other| this.is_some_and(|this| (this - other).abs() <= tolerance))
}

/// Whether two cells say the same: numbers within the tolerance, everything else, and how many there were, to the
/// letter.
fn near(a: &str, b: &str, tolerance: f64) -> bool {
    let (a, b) = (parts(a), parts(b));
    // printed decimals are rounded, so that a difference of just the tolerance may look a little larger
    let close = |a: f64, b: f64| a == b || (a - b).abs() <= tolerance * (1.0 + 1e-9);
    let counts = |i: usize| i > 0 && matches!(&a[i - 1], Err(word) if word.ends_with("n = "));
    a.len() == b.len()
        && a.iter().zip(&b).enumerate().all(|(i, pair)| match pair {
            (Ok(a), Ok(b)) => {
                if counts(i) {
                    a == b
                } else {
                    close(*a, *b)
                }
            }
            (a, b) => a == b,
        })
}

/// The numbers of a text, and what stands between them.
fn parts(text: &str) -> Vec<Result<f64, String>> {
    let mut out: Vec<Result<f64, String>> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let after_word =
            matches!(out.last(), Some(Err(word)) if word.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let length = if after_word { 0 } else { number_length(rest) };
        if length > 0
            && let Ok(number) = rest[..length].parse()
        {
            out.push(Ok(number));
            rest = &rest[length..];
            continue;
        }
        let mut chars = rest.chars();
        let next = chars.next().expect("it is not empty");
        match out.last_mut() {
            Some(Err(word)) => word.push(next),
            _ => out.push(Err(next.into())),
        }
        rest = chars.as_str();
    }
    out
}

/// How long the number is that a text begins with; 0 if with none.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(sign);
    if whole == 0 {
        return 0;
    }
    let mut length = sign + whole;
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        if digits(length + 1 + sign) > 0 {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    // a word that begins with digits is a word
    let word = text[length..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    if word { 0 } else { length }
}

/// The tables of a file.
fn parse(text: &str, format: Format) -> Vec<Found> {
    let mut tables: Vec<Found> = Vec::new();
    let mut open = false;
    let mut title = None;
    let lines: Vec<&str> = text.lines().collect();
    let code = if format == Format::Markdown { fenced(&lines) } else { vec![false; lines.len()] };
    for (at, &raw) in lines.iter().enumerate() {
        let line = raw.trim();
        if let Some(found) = titled(raw, format).filter(|_| !code[at]) {
            title = Some(found);
        }
        let cells = match format {
            Format::Markdown => line.strip_prefix('|').map(|line| split(line.strip_suffix('|').unwrap_or(line), '|')),
            Format::Csv => (!line.is_empty() && !line.starts_with('#')).then(|| csv(line)),
            Format::Latex => line.strip_suffix("\\\\").map(|line| split(line, '&')),
            Format::Html => line.strip_prefix("<tr>").map(html),
        };
        // what rules off a table in one format does not end it
        let rule = match format {
            Format::Latex => line == "\\midrule",
            Format::Html => matches!(line, "<thead>" | "</thead>" | "<tbody>"),
            _ => false,
        };
        if let (true, None, Format::Markdown, Some(last)) = (open, &cells, format, tables.last_mut()) {
            last.note = note_below(&lines, &code, at).map(|note| lines[note].trim().to_string());
        }
        match cells {
            None => open &= rule,
            Some(cells) if format == Format::Markdown && is_rule(&cells) => {}
            Some(cells) => {
                if !open {
                    tables.push(Found { title: title.take(), lines: Vec::new(), note: None });
                }
                open = true;
                let cells = cells.iter().map(|cell| plain(cell, format)).collect();
                tables.last_mut().expect("one was put there").lines.push(Line { raw: raw.into(), cells });
            }
        }
    }
    tables
}

/// The title that a line gives to the table below it.
fn titled(raw: &str, format: Format) -> Option<String> {
    let line = raw.trim();
    match format {
        Format::Markdown => heading(raw).map(String::from),
        Format::Csv => line.strip_prefix('#').map(|text| text.trim().into()),
        Format::Latex => line.strip_prefix("% ").map(String::from),
        Format::Html => {
            let level = line.strip_prefix("<h")?;
            level.starts_with(|c: char| c.is_ascii_digit()).then(|| plain(line, format).text)
        }
    }
}

/// The lines of a table with marks where they belong: in CSV that of a mean stands in a column of its own, the third
/// after it.
fn marked(lines: &[Line], marks: &[usize]) -> Vec<Line> {
    let mut lines = lines.to_vec();
    for line in lines.iter_mut().skip(1) {
        for &j in marks {
            // whatever else stands there is compared as it is
            if line.cells.get(j).is_some_and(|cell| ["yes", ""].contains(&cell.text.as_str())) {
                line.cells[j - 3].best = std::mem::take(&mut line.cells[j].text) == "yes";
            }
        }
    }
    lines
}

fn is_rule(cells: &[String]) -> bool {
    cells.iter().all(|cell| cell.contains('-') && cell.trim().chars().all(|c| "-: ".contains(c)))
}

/// The parts between separators that have no backslash before them.
fn split(line: &str, separator: char) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in line.chars() {
        if c == separator && !escaped {
            out.push(String::new());
        } else {
            out.last_mut().expect("there is one").push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

fn csv(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = out.last_mut().expect("there is one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                last.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => last.push(c),
        }
    }
    out
}

fn html(row: &str) -> Vec<String> {
    let cells = row.split("</td>").flat_map(|part| part.split("</th>"));
    cells.filter(|cell| cell.contains("<td") || cell.contains("<th")).map(String::from).collect()
}

/// A cell without its marks.
fn plain(cell: &str, format: Format) -> Cell {
    let (mark, ends): (&str, &[&str]) = match format {
        Format::Markdown => ("**", &["**"]),
        Format::Latex => ("\\textbf{", &["{}", "\\textbf{", "{\\scriptsize", "}"]),
        Format::Html => ("<strong", &[]),
        Format::Csv => return Cell { text: cell.trim().into(), best: false },
    };
    let mut text = String::new();
    let mut inside = false;
    for c in cell.chars() {
        match c {
            '<' if format == Format::Html => inside = true,
            '>' if format == Format::Html => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    for end in ends {
        text = text.replace(end, "");
    }
    Cell { text: text.split_whitespace().collect::<Vec<_>>().join(" "), best: cell.contains(mark) }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Cell as Drawn, Head, Number, Table};
    use super::*;

    fn sample(psnr: [f64; 2]) -> Vec<Titled> {
        let head = |text: &str, means: Option<&str>, tolerance| Head {
            text: text.into(),
            number: means.is_some(),
            means: means.map(String::from),
            tolerance,
            ..Head::default()
        };
        let best = psnr[0].max(psnr[1]);
        let row = |name: &str, value: f64| {
            let number = Some(Number { value, deviation: Some(0.5), n: 3 });
            let mean =
                Drawn { spread: "± 0.50".into(), best: value == best, number, ..Drawn::new(format!("{value:.2}")) };
            vec![Drawn::new(name), mean, Drawn::faint("n/a")]
        };
        let table = Table {
            head: vec![head("variant", None, 0.0), head("psnr ↑", Some("psnr"), 0.1), head("jod", Some("jod"), 0.0)],
            rows: vec![row("full | all", psnr[0]), row("no_prior & 2", psnr[1])],
            note: Some("a note".into()),
            ..Table::default()
        };
        vec![Titled { title: "Scores".into(), table }]
    }

    fn told(old: [f64; 2], new: [f64; 2], format: Format) -> Vec<String> {
        let text = write("t", &sample(old), format).unwrap();
        let around =
            if format == Format::Markdown { format!("# Ablations\n\nWords.\n\n{text}\nMore.\n") } else { text };
        differences("t", &sample(new), &around, format).unwrap()
    }

    #[test]
    fn a_note_that_says_something_else_is_told_and_other_words_are_nobodys_business() {
        let tables = sample([20.0, 19.0]);
        let written = write("t", &tables, Format::Markdown).unwrap();
        assert!(written.contains("*a note*"), "{written}");
        let told = |text: &str| differences("t", &tables, text, Format::Markdown).unwrap().join("\n");
        assert_eq!(told(&written), "");
        assert_eq!(told(&written.replace("*a note*", "")), "", "a file may do without");
        let stale = told(&written.replace("*a note*", "*means of stuff*"));
        assert!(stale.contains("- *means of stuff*") && stale.contains("+ *a note*"), "{stale}");
        // neither is the place that a note is written to
        for other in ["*In short:*\nwords", "```\ncode\n```\n\n*Measured here.*"] {
            assert_eq!(told(&written.replace("*a note*", other)), "", "{other}");
        }
    }

    #[test]
    fn what_was_written_is_found_again_in_every_format() {
        for (name, format) in Format::ALL {
            assert!(told([20.0, 19.0], [20.0, 19.0], format).is_empty(), "{name}: equal");
            assert!(told([20.0, 19.0], [20.05, 18.95], format).is_empty(), "{name}: within the tolerance");
            let apart = told([20.0, 19.0], [20.0, 19.25], format);
            assert_eq!(apart.len(), 3, "{name}: {apart:?}");
            assert!(apart[1].starts_with("- ") && apart[1].contains("19"), "{name}: {apart:?}");
            assert!(apart[2].starts_with("+ ") && apart[2].contains("19.25"), "{name}: {apart:?}");
        }
    }

    #[test]
    fn the_mark_moves_only_between_what_is_as_good() {
        for (name, format) in Format::ALL {
            assert!(told([20.0, 20.05], [20.05, 20.0], format).is_empty(), "{name}: a tie within the tolerance");
            let text = write("t", &sample([20.0, 19.0]), format).unwrap();
            let wrong = match format {
                Format::Markdown => text.replace("**20.00**", "20.00").replace("19.00", "**19.00**"),
                Format::Latex => text.replace("\\textbf{20.00}", "20.00").replace("19.00", "\\textbf{19.00}"),
                Format::Csv => text.replace("20,0.5,3,yes", "20,0.5,3,").replace("19,0.5,3,", "19,0.5,3,yes"),
                _ => text
                    .replace("<strong class=\"best\">20.00</strong>", "20.00")
                    .replace("19.00", "<strong>19.00</strong>"),
            };
            assert_ne!(text, wrong, "{name}");
            assert!(
                !differences("t", &sample([20.0, 19.0]), &wrong, format).unwrap().is_empty(),
                "{name}: moved by hand"
            );
        }
    }

    /// Scores of two methods on two splits, the better one of each split marked.
    fn splits(title: &str, psnr: [f64; 4], picked: &str) -> Titled {
        let head = |text: &str, means: Option<&str>, tolerance| Head {
            text: text.into(),
            means: means.map(String::from),
            tolerance,
            ..Head::default()
        };
        let row = |i: usize| {
            let number = Some(Number { value: psnr[i], deviation: None, n: 1 });
            let best = psnr[i] >= psnr[i ^ 1];
            let mean = Drawn { best, number, ..Drawn::new(format!("{:.2}", psnr[i])) };
            vec![
                Drawn::new(["a", "b"][i / 2]),
                Drawn::new(["x", "y"][i % 2]),
                Drawn::new("s"),
                Drawn::new(picked),
                mean,
            ]
        };
        let heads = ["split", "method", "kind", "picked_best"].map(|name| head(name, None, 0.0));
        let head = heads.into_iter().chain([head("psnr", Some("psnr"), 0.3)]).collect();
        let table = Table { head, rows: (0..4).map(row).collect(), note: None, shared: 1 };
        Titled { title: title.into(), table }
    }

    #[test]
    fn a_mark_is_one_among_the_rows_that_are_compared() {
        let tables = [splits("Splits", [26.55, 26.0, 25.99, 25.0], "no")];
        for (name, format) in Format::ALL {
            let text = write("t", &tables, format).unwrap();
            assert!(differences("t", &tables, &text, format).unwrap().is_empty(), "{name}");
            // 26.00 is near the best of the other split, and far from that of its own
            let wrong = match format {
                Format::Markdown => text.replace("| 26.00 |", "| **26.00** |"),
                Format::Latex => text.replace("& 26.00 ", "& \\textbf{26.00} "),
                Format::Csv => text.replace("26,,1,", "26,,1,yes"),
                Format::Html => text.replace(">26.00<", "><strong>26.00</strong><"),
            };
            assert_ne!(text, wrong, "{name}");
            assert_eq!(differences("t", &tables, &wrong, format).unwrap().len(), 3, "{name}");
        }
    }

    #[test]
    fn tables_of_one_head_are_told_apart_by_their_titles() {
        let tables = [splits("One", [1.0, 2.0, 3.0, 4.0], "no"), splits("Two_ *x*", [5.0, 6.0, 7.0, 8.0], "no")];
        for (name, format) in Format::ALL {
            let text = write("t", &tables, format).unwrap();
            let told = |tables: &[Titled]| differences("t", tables, &text, format).unwrap();
            assert!(told(&tables[1..]).is_empty(), "{name}: {:?}", told(&tables[1..]));
            assert!(told(&tables).is_empty() && told(&tables[..1]).is_empty(), "{name}");
            // who calls it otherwise still has it
            assert!(differences("t", &tables, &text.replace("Two", "Second"), format).unwrap().is_empty(), "{name}");
        }
        // what looks like a heading in a block of code is none
        let text = write("t", &tables, Format::Markdown).unwrap();
        let text = text.replace("x\\*\n\n", "x\\*\n\n```\n# One\n```\n\n");
        assert!(text.contains("# One\n```"), "{text}");
        assert!(differences("t", &tables[1..], &text, Format::Markdown).unwrap().is_empty());
    }

    #[test]
    fn a_column_that_is_called_like_a_mark_is_compared() {
        let psnr = [1.0, 2.0, 3.0, 4.0];
        let text = write("t", &[splits("T", psnr, "left")], Format::Csv).unwrap();
        assert!(text.contains("a,x,s,left,1,,1,\n"), "{text}");
        let told = |picked: &str| differences("t", &[splits("T", psnr, picked)], &text, Format::Csv).unwrap();
        assert!(told("left").is_empty() && !told("right").is_empty() && !told("").is_empty());
        // and what is no mark in the column of marks is told
        let odd = text.replace("a,x,s,left,1,,1,\n", "a,x,s,left,1,,1,no\n");
        assert!(!differences("t", &[splits("T", psnr, "left")], &odd, Format::Csv).unwrap().is_empty());
    }

    #[test]
    fn lost_added_and_moved_rows_are_told() {
        let text = write("t", &sample([20.0, 19.0]), Format::Markdown).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let (first, second) = (lines[4], lines[5]);
        let lost = text.replace(&format!("{first}\n"), "");
        let told = |text: &str| differences("t", &sample([20.0, 19.0]), text, Format::Markdown).unwrap();
        assert_eq!(told(&lost)[1..], [format!("+ {first}")]);
        let added = text.replace(first, &format!("{first}\n| other | 1.00 | n/a |"));
        assert_eq!(told(&added)[1..], ["- | other | 1.00 | n/a |".to_string()]);
        let moved = text.replace(&format!("{first}\n{second}"), &format!("{second}\n{first}"));
        assert_eq!(told(&moved)[1..], ["the rows stand in another order".to_string()]);
        assert!(told("nothing here")[0].contains("no table with the head of `Scores`"));
    }

    #[test]
    fn numbers_are_told_from_words() {
        let all = |text: &str| parts(text).into_iter().filter_map(Result::ok).collect::<Vec<f64>>();
        assert_eq!(all("24.31 ± 0.12 (n = 2)"), [24.31, 0.12, 2.0]);
        assert_eq!(all("+1.5e-3"), [1.5e-3]);
        assert!(all("seed_1 64px EXP-5x").is_empty());
        assert!(near("inf", "inf", 0.0) && !near("inf", "20.0", 9.0) && !near("1", "1.0 ± 2", 9.0));
        assert!(near("1.0 (n = 2)", "1.5 (n = 2)", 1.0) && !near("1.0 (n = 2)", "1.0 (n = 3)", 1.0));
    }
}
