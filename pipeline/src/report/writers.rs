//! Tables as files of their own: Markdown, CSV, LaTeX and HTML, all of the same cells. Knows no run.

use super::document::{Cell, Head, Number, Table};
use super::palette::{Color, PALETTE};
use super::{markdown, prose};
use askama::Template;

/// A table and its heading.
#[derive(Debug)]
pub struct Titled {
    /// Its heading.
    pub title: String,
    pub(super) table: Table,
}

/// How tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As GitHub and its like read it.
    Markdown,
    /// Numbers as they were computed, with mean, deviation, n and mark of the best in columns of their own. Several
    /// tables have their titles above them, behind `#`; one that is alone has none, so that whoever reads such files
    /// can read it.
    Csv,
    /// For the package booktabs.
    Latex,
    /// A page of its own.
    Html,
}

impl Format {
    /// All of them, by the name that a command line knows.
    pub const ALL: [(&'static str, Format); 4] =
        [("md", Format::Markdown), ("csv", Format::Csv), ("tex", Format::Latex), ("html", Format::Html)];

    /// The format of a file, by its extension.
    pub fn of(path: &std::path::Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?;
        Format::ALL.into_iter().find(|(name, _)| *name == extension).map(|(_, format)| format)
    }
}

#[derive(Template)]
#[template(path = "tables.html")]
struct Page<'a> {
    title: &'a str,
    tables: &'a [Titled],
    palette: &'static [Color],
}

/// Tables as one file; `title` names the whole, where the format has a place for it.
///
/// # Errors
/// If the page cannot be made, which is a fault of its template.
pub fn write(title: &str, tables: &[Titled], format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Markdown => {
            let one = |titled: &Titled| {
                format!("### {}\n\n{}", markdown::escape(&titled.title), markdown::table(&titled.table))
            };
            format!("{}\n", tables.iter().map(one).collect::<String>().trim_end())
        }
        Format::Csv => match tables {
            [one] => csv(one),
            _ => {
                let one = |titled: &Titled| format!("# {}\n{}", one_line(&titled.title), csv(titled));
                tables.iter().map(one).collect::<Vec<_>>().join("\n")
            }
        },
        Format::Latex => tables.iter().map(latex).collect::<Vec<_>>().join("\n"),
        Format::Html => Page { title, tables, palette: &PALETTE }.render()?,
    })
}

/// The columns of a format, and how far each may be off.
pub(super) fn tolerances(table: &Table, format: Format) -> Vec<f64> {
    let of = |head: &Head| match csv_names(head).len() {
        // mean and deviation, not their number and the mark
        4 if format == Format::Csv => vec![head.tolerance, head.tolerance, 0.0, 0.0],
        _ => vec![head.tolerance],
    };
    table.head.iter().flat_map(of).collect()
}

/// Where the mark of the best stands in a column of its own, the third behind its mean.
pub(super) fn marks(table: &Table, format: Format) -> Vec<usize> {
    let mut width = 0;
    let of = |head: &Head| {
        width += csv_names(head).len();
        (format == Format::Csv && head.means.is_some()).then_some(width - 1)
    };
    table.head.iter().filter_map(of).collect()
}

/// What a file of numbers calls a column: one name, or four for means.
fn csv_names(head: &Head) -> Vec<String> {
    match &head.means {
        None => vec![head.text.clone()],
        Some(name) => ["", "_deviation", "_n", "_best"].map(|end| format!("{name}{end}")).into(),
    }
}

fn csv(titled: &Titled) -> String {
    let line = |values: Vec<String>| format!("{}\n", values.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(","));
    let number = |x: f64| if x.is_finite() { format!("{x}") } else { format!("{x}").to_lowercase() };
    let cell = |(cell, head): (&Cell, &Head)| -> Vec<String> {
        match (&head.means, cell.number) {
            (Some(_), Some(Number { value, deviation, n })) => {
                let best = if cell.best { "yes" } else { "" };
                vec![number(value), deviation.map(number).unwrap_or_default(), n.to_string(), best.into()]
            }
            // a number that is not there is an empty field, which every reader of such files takes for missing
            (Some(_), None) => vec![String::new(); 4],
            (None, Some(Number { value, .. })) => vec![number(value)],
            (None, None) if is_absent(cell) => vec![String::new()],
            (None, None) => vec![cell.text.clone()],
        }
    };
    let mut out = line(titled.table.head.iter().flat_map(csv_names).collect());
    for row in &titled.table.rows {
        out += &line(row.iter().zip(&titled.table.head).flat_map(cell).collect());
    }
    out
}

/// Whether a cell stands for a value that is not there.
fn is_absent(cell: &Cell) -> bool {
    cell.faint && ["n/a", "–"].contains(&cell.text.as_str())
}

/// Text that has to stay within a comment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n', '\r']) || value.starts_with('#') {
        true => format!("\"{}\"", one_line(&value.replace('"', "\"\""))),
        false => value.into(),
    }
}

fn latex(titled: &Titled) -> String {
    let table = &titled.table;
    let columns: String = table.head.iter().map(|head| if head.number { 'r' } else { 'l' }).collect();
    let cell = |cell: &Cell| {
        let text = tex(&cell.text);
        let text = if cell.best { format!("\\textbf{{{text}}}") } else { text };
        let behind = cell.behind();
        if behind.is_empty() { text } else { format!("{text} {{\\scriptsize {}}}", tex(&behind)) }
    };
    let mut out = format!("% {}; needs \\usepackage{{booktabs}}\n", one_line(&titled.title));
    out += &format!("\\begin{{tabular}}{{{columns}}}\n\\toprule\n");
    let line = |cells: Vec<String>| {
        let cells = cells.join(" & ");
        // the end of the line above, or a rule, would take these for arguments of its own
        let guard = if cells.starts_with(['[', '*']) { "{}" } else { "" };
        format!("{guard}{cells} \\\\\n")
    };
    out += &line(table.head.iter().map(|head| tex(&head.text)).collect());
    out += "\\midrule\n";
    table.rows.iter().for_each(|row| out += &line(row.iter().map(cell).collect()));
    out += "\\bottomrule\n\\end{tabular}\n";
    if let Some(note) = &table.note {
        out += &format!("% {}\n", one_line(note));
    }
    out
}

/// Text with what LaTeX would take for commands taken back, and our signs as its own.
fn tex(text: &str) -> String {
    let one = |c: char| match c {
        '\\' => "\\textbackslash{}".into(),
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
        '~' => "\\textasciitilde{}".into(),
        '^' => "\\textasciicircum{}".into(),
        // in LaTeX's own encoding of fonts these are other signs
        '<' => "\\textless{}".into(),
        '>' => "\\textgreater{}".into(),
        '|' => "\\textbar{}".into(),
        '±' => "$\\pm$".into(),
        'Δ' => "$\\Delta$".into(),
        '↑' => "$\\uparrow$".into(),
        '↓' => "$\\downarrow$".into(),
        '–' => "--".into(),
        '\n' | '\r' => " ".into(),
        c => c.to_string(),
    };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(title: &str) -> Vec<Titled> {
        let head = |text: &str, means: Option<&str>| Head {
            text: text.into(),
            means: means.map(String::from),
            ..Head::default()
        };
        let row = |name: &str| {
            let number = Some(Number { value: 1.5, deviation: None, n: 2 });
            vec![Cell::new(name), Cell { number, ..Cell::new("1.5") }, Cell::new("yes")]
        };
        let table = Table {
            head: vec![head("[name]", None), head("psnr", Some("psnr")), head("is_best", None)],
            rows: vec![row("*all*"), row("[0, 1]"), row("a < b | c > d")],
            ..Table::default()
        };
        vec![Titled { title: title.into(), table }]
    }

    #[test]
    fn latex_takes_no_cell_for_an_argument_or_another_sign() {
        let text = write("t", &sample("A\nB"), Format::Latex).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2]), ("% A B; needs \\usepackage{booktabs}", "\\toprule"));
        assert_eq!(lines[3], "{}[name] & psnr & is\\_best \\\\");
        assert_eq!(lines[5], "{}*all* & 1.5 & yes \\\\");
        assert_eq!(lines[6], "{}[0, 1] & 1.5 & yes \\\\");
        assert_eq!(lines[7], "a \\textless{} b \\textbar{} c \\textgreater{} d & 1.5 & yes \\\\");
    }

    #[test]
    fn a_title_of_several_lines_is_one_comment_in_csv() {
        let two = [sample("A,\nB"), sample("C")].into_iter().flatten().collect::<Vec<_>>();
        let text = write("t", &two, Format::Csv).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["# A, B", "[name],psnr,psnr_deviation,psnr_n,psnr_best,is_best"]);
        assert_eq!(lines[5..7], ["", "# C"]);
        assert_eq!(lines[2], "*all*,1.5,,2,,yes");
        assert_eq!(marks(&sample("")[0].table, Format::Csv), [4]);
        assert!(marks(&sample("")[0].table, Format::Markdown).is_empty());
    }

    #[test]
    fn a_table_that_is_alone_in_csv_begins_with_its_columns_and_has_empty_fields() {
        let mut one = sample("A");
        one[0].table.rows[0][2] = Cell::faint("n/a");
        one[0].table.rows[1][0] = Cell::faint("–");
        one[0].table.rows[2][2] = Cell::new("n/a");
        let text = write("t", &one, Format::Csv).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "[name],psnr,psnr_deviation,psnr_n,psnr_best,is_best",
            "*all*,1.5,,2,,",
            ",1.5,,2,,yes",
            "a < b | c > d,1.5,,2,,n/a",
        ];
        assert_eq!(lines, expected, "what a cell says itself stays");
    }
}
