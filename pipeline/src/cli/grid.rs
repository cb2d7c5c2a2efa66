//! A table as lines of text, for people: some rows and columns of a large one, and a sentence that tells what is left
//! out. Knows nothing of where the cells come from.

use std::collections::BTreeSet;

/// So many rows are shown if nobody says how many.
pub const ROWS: usize = 10;
/// So many columns, if nobody names some.
const COLUMNS: usize = 8;
/// Longer texts are cut.
const SIGNS: usize = 40;

/// A table, or what is shown of it.
pub struct Grid {
    /// Name and type of each column.
    pub head: Vec<(String, String)>,
    /// A text for each column.
    pub rows: Vec<Vec<String>>,
    /// Rows of the whole table.
    pub of_rows: usize,
    /// Columns of the whole table.
    pub of_columns: usize,
}

/// The columns that are shown of so many: those that are `wanted`, and until there are enough of those that are
/// `liked`, best first, and then others from both ends.
pub fn columns(
    count: usize,
    wanted: impl IntoIterator<Item = usize>,
    liked: impl IntoIterator<Item = usize>,
) -> Vec<usize> {
    let mut shown: BTreeSet<usize> = wanted.into_iter().collect();
    for column in liked {
        if shown.len() >= COLUMNS {
            break;
        }
        shown.insert(column);
    }
    // where rows come from stands at the beginning, what was made of them last at the end
    for step in 0..count {
        if shown.len() >= COLUMNS {
            break;
        }
        shown.insert(if step % 2 == 0 { step / 2 } else { count - 1 - step / 2 });
    }
    shown.into_iter().collect()
}

impl Grid {
    /// Its lines: names, types and rows, and what is not shown if something is not. `whole`: long texts are not cut.
    /// `more`: what shows other rows and columns.
    pub fn text(&self, whole: bool, more: &str) -> String {
        let mut is_cut = false;
        let mut cell = |text: &str| {
            let text = super::clean(text);
            if whole || text.chars().count() <= SIGNS {
                return text;
            }
            is_cut = true;
            text.chars().take(SIGNS - 1).chain(['…']).collect()
        };
        let (names, types) = self.head.iter().cloned().unzip();
        let mut lines: Vec<Vec<String>> = vec![names, types];
        for row in &self.rows {
            lines.push(row.iter().map(|text| cell(text)).collect());
        }
        let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_string()
        };
        let mut told: Vec<String> = lines.iter().map(line).collect();
        told.insert(2, widths.iter().map(|&width| "─".repeat(width)).collect::<Vec<_>>().join("  "));
        told.extend(self.left_out(is_cut, more));
        told.join("\n")
    }

    /// What is not shown.
    fn left_out(&self, is_cut: bool, more: &str) -> Option<String> {
        if self.of_rows == 0 {
            return Some("no rows".into());
        }
        let counts =
            [(self.rows.len(), self.of_rows, "rows"), (self.head.len(), self.of_columns, "columns")].into_iter();
        let hidden: Vec<String> = counts
            .filter(|(shown, all, _)| shown < all)
            .map(|(shown, all, what)| format!("{shown} of {all} {what}"))
            .collect();
        let mut told = Vec::new();
        if !hidden.is_empty() {
            told.push(format!("{} are shown: {more}", hidden.join(" and ")));
        }
        if is_cut {
            told.push("texts that end in … are longer: `--json` has them whole".into());
        }
        (!told.is_empty()).then(|| told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_columns_are_shown_and_others_from_both_ends() {
        assert_eq!(columns(3, [1], []), [0, 1, 2]);
        assert_eq!(columns(8, [], [7]), (0..8).collect::<Vec<_>>());
        assert_eq!(columns(66, [], []), [0, 1, 2, 3, 62, 63, 64, 65]);
        assert_eq!(columns(66, [30, 0], []), [0, 1, 2, 3, 30, 63, 64, 65]);
        assert_eq!(columns(66, [30], [5, 50, 7, 30]), [0, 1, 5, 7, 30, 50, 64, 65]);
        assert_eq!(
            columns(66, [3], 10..40),
            [3, 10, 11, 12, 13, 14, 15, 16],
            "no more of what is liked than there is room"
        );
        assert_eq!(columns(20, 5..15, [0]), (5..15).collect::<Vec<_>>(), "all that somebody names");
        assert!(columns(0, [], []).is_empty());
    }

    #[test]
    fn what_is_not_shown_is_told() {
        let head = vec![("name".to_string(), "str".to_string()), ("n".into(), "i64".into())];
        let mut grid = Grid { head, rows: vec![vec!["a\nb".into(), "-7".into()]], of_rows: 1, of_columns: 2 };
        assert_eq!(grid.text(false, ""), "name  n\nstr   i64\n────  ───\na b   -7");
        grid.rows[0][0] = "x".repeat(SIGNS + 1);
        assert!(grid.text(true, "").ends_with(&format!("{}  -7", "x".repeat(SIGNS + 1))));
        let text = grid.text(false, "");
        assert!(text.contains(&format!("\n{}…  -7\n", "x".repeat(SIGNS - 1))), "{text}");
        assert!(text.ends_with("\ntexts that end in … are longer: `--json` has them whole"), "{text}");
        (grid.of_rows, grid.of_columns) = (63, 66);
        assert!(grid.text(true, "more").ends_with("\n1 of 63 rows and 2 of 66 columns are shown: more"));
        let none = Grid { head: Vec::new(), rows: Vec::new(), of_rows: 0, of_columns: 0 };
        assert_eq!(none.text(false, ""), "\n\n\nno rows");
    }
}
