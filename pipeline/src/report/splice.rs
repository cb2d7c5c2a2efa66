//! Fresh tables put into a Markdown file that somebody keeps: each below the heading that is its title, in the place of
//! the table that stands there. All other text stays as it is. Knows no run.

use super::markdown;
use super::writers::Titled;
use std::ops::Range;

/// The text of a Markdown file with these tables in it. A table goes below the heading that is its title, at whatever
/// level, in the place of the table of that section and of the line in italics right below that, which is its note;
/// right below the heading, if the section has no table. What no heading names is appended. Nothing else is touched.
pub fn splice(tables: &[Titled], kept: &str) -> String {
    let newline = if kept.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = kept.split_inclusive('\n').collect();
    let code = fenced(&lines);
    let headings: Vec<(usize, &str)> =
        (0..lines.len()).filter(|&i| !code[i]).filter_map(|i| Some((i, heading(lines[i])?))).collect();
    let mut taken = vec![false; headings.len()];
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut more = String::new();
    for titled in tables {
        let title = markdown::escape(&titled.title);
        let body = format!("{}\n", markdown::table(&titled.table).trim_end());
        let names = |text: &str| text == title.trim() || text == titled.title.trim();
        let Some(h) = (0..headings.len()).find(|&h| !taken[h] && names(headings[h].1)) else {
            more += &format!("\n### {title}\n\n{body}");
            continue;
        };
        taken[h] = true;
        let end = headings.get(h + 1).map_or(lines.len(), |(line, _)| *line);
        edits.push(edit(&lines, &code, headings[h].0 + 1..end, body));
    }
    edits.sort_by_key(|(range, _)| range.start);
    let (mut out, mut at) = (String::new(), 0);
    for (range, text) in edits {
        out += &lines[at..range.start].concat();
        out += &text.replace('\n', newline);
        at = range.end;
    }
    out += &lines[at..].concat();
    if out.is_empty() {
        return more.trim_start().into();
    }
    if !more.is_empty() && !out.ends_with('\n') {
        out += newline;
    }
    out + &more.replace('\n', newline)
}

/// The lines of a section that a table takes the place of, and the text that goes there. The section begins below its
/// heading.
fn edit(lines: &[&str], code: &[bool], section: Range<usize>, body: String) -> (Range<usize>, String) {
    let is_row = |i: usize| !code[i] && lines[i].trim_start().starts_with('|');
    let is_blank = |i: usize| lines[i].trim().is_empty();
    let starts: Vec<usize> = section.clone().filter(|&i| is_row(i) && !is_row(i - 1)).collect();
    // of several tables the one with the same columns
    let head = body.lines().next().unwrap_or_default();
    let same = starts.iter().copied().find(|&i| lines[i].trim() == head);
    let Some(start) = same.or(starts.first().copied()) else {
        let above = if lines[section.start - 1].ends_with('\n') { "\n" } else { "\n\n" };
        let below = if section.is_empty() || is_blank(section.start) { "" } else { "\n" };
        return (section.start..section.start, format!("{above}{body}{below}"));
    };
    let end = (start..section.end).find(|&i| !is_row(i)).unwrap_or(section.end);
    let note = note_below(&lines[..section.end], code, end);
    (start..note.map_or(end, |note| note + 1), body)
}

/// Which line is the note of a table that ends before line `end`: the first below it, in italics and alone between
/// blank lines.
pub(super) fn note_below(lines: &[&str], code: &[bool], end: usize) -> Option<usize> {
    let is_blank = |i: usize| lines[i].trim().is_empty();
    let next = (end..lines.len()).find(|&i| !is_blank(i))?;
    let alone = next + 1 >= lines.len() || is_blank(next + 1);
    (end < next && !code[next] && alone && is_note(lines[next])).then_some(next)
}

/// Whether a line is all in italics, as notes are.
fn is_note(line: &str) -> bool {
    let inner = line.trim().strip_prefix('*').and_then(|text| text.strip_suffix('*'));
    inner.is_some_and(|text| !text.is_empty() && !text.starts_with([' ', '*']) && !text.ends_with([' ', '*']))
}

/// The text of a heading; `None` for a line that is none.
pub(super) fn heading(line: &str) -> Option<&str> {
    let hashes = line.bytes().take_while(|&byte| byte == b'#').count();
    let text = line[hashes..].strip_prefix(' ').filter(|_| (1..=6).contains(&hashes))?;
    Some(text.trim())
}

/// Which lines stand in blocks of code, with the fences around them.
pub(super) fn fenced(lines: &[&str]) -> Vec<bool> {
    let mut open: Option<(char, usize)> = None;
    let inside = |line: &&str| {
        let text = line.trim();
        let mark = text.chars().next().filter(|c| "`~".contains(*c));
        let fence = mark.map(|mark| (mark, text.chars().take_while(|c| *c == mark).count()));
        match (open, fence.filter(|(_, length)| *length >= 3)) {
            (None, None) => return false,
            (None, fence) => open = fence,
            // what closes it is as long at least, and alone on its line
            (Some((mark, least)), Some((other, length))) => {
                if other == mark && length >= least && length == text.len() {
                    open = None;
                }
            }
            (Some(_), None) => {}
        }
        true
    };
    lines.iter().map(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::{Cell, Head, Table};
    use super::*;

    fn titled(title: &str, value: &str, note: Option<&str>) -> Titled {
        let head = |text: &str| Head { text: text.into(), ..Head::default() };
        let table = Table {
            head: vec![head("method"), head("psnr")],
            rows: vec![vec![Cell::new("full"), Cell::new(value)]],
            note: note.map(String::from),
            ..Table::default()
        };
        Titled { title: title.into(), table }
    }

    const KEPT: &str = "# Kept\n\nWords.\n\n```sh\n# Scores\n| no | table |\n```\n\n## Scores\n\nBefore.\n\n| mine | own |\n| --- | --- |\n| 1 | 2 |\n\n\
                        | method | psnr |\n| --- | --- |\n| full | 1 |\n| old | 2 |\n\n*an old note*\n\nAfter.\n\n### Empty\nBelow.\n\n# Rest\n\n*mine*\n";

    #[test]
    fn tables_take_the_places_of_their_like_and_all_else_stays() {
        let tables =
            [titled("New_ *one*", "5", None), titled("Scores", "3", Some("a note")), titled("Empty", "4", None)];
        let out = splice(&tables, KEPT);
        let table = |value: &str| format!("| method | psnr |\n| --- | --- |\n| full | {value} |\n");
        let expected = KEPT
            .replace(&format!("{}| old | 2 |\n\n*an old note*\n", table("1")), &format!("{}\n*a note*\n", table("3")))
            .replace("### Empty\n", &format!("### Empty\n\n{}\n", table("4")));
        assert_eq!(out, format!("{expected}\n### New\\_ \\*one\\*\n\n{}", table("5")));
        assert_eq!(splice(&tables, &out), out, "once more it changes nothing");
        let only = splice(&tables[1..2], KEPT);
        assert!(only.contains(&table("3")) && only.contains("### Empty\nBelow.") && !only.contains("New"), "{only}");
        // a note that is no longer true goes, and text that is no note stays
        let bare = splice(&[titled("Scores", "3", None)], KEPT);
        assert!(bare.contains(&format!("{}\nAfter.\n", table("3"))), "{bare}");
        let bold = KEPT.replace("*an old note*", "**No** *note*");
        assert!(splice(&tables, &bold).contains("*a note*\n\n**No** *note*\n\nAfter."));
    }

    #[test]
    fn files_end_and_break_lines_as_they_like() {
        let one = [titled("Scores", "3", None)];
        let fresh = "### Scores\n\n| method | psnr |\n| --- | --- |\n| full | 3 |\n";
        assert_eq!(splice(&one, ""), fresh);
        assert_eq!(splice(&one, "Words."), format!("Words.\n\n{fresh}"));
        assert_eq!(splice(&one, "### Scores"), fresh);
        assert_eq!(splice(&one, "# A\r\n\r\n### Scores\r\n"), format!("# A\n\n{fresh}").replace('\n', "\r\n"));
        // two tables of one title, one after the other
        let two = splice(&[titled("Scores", "3", None), titled("Scores", "4", None)], fresh);
        assert_eq!(two, format!("{fresh}\n{}", fresh.replace('3', "4")));
    }
}
