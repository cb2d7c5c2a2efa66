//! The order of a sequence's rows in time.
//!
//! No stage, but what those share whose group is a sequence: they name files by the timestep, or look from one row to
//! the next, so one timestep twice would mix what does not belong together. Knows no other column.

use anyhow::{Result, ensure};
use protocol::Row;

/// Timesteps and places of rows, in the order of time.
///
/// # Errors
/// If a timestep is there twice.
pub fn in_time(rows: &[Row<'_>]) -> Result<Vec<(i64, usize)>> {
    let timestep = |(i, row): (usize, &Row<'_>)| Ok((row.i64("timestep")?, i));
    ordered(rows.iter().enumerate().map(timestep).collect::<Result<_>>()?)
}

/// Refuses one moment twice, of moments of a person that are sorted: they would be two people, or one moment that
/// counts as often as there are cameras.
///
/// # Errors
/// If two are equal.
pub fn once<'a>(mut moments: impl Iterator<Item = (&'a str, i64)>) -> Result<()> {
    let mut before = moments.next();
    for moment in moments {
        ensure!(
            before != Some(moment),
            "sequence {} has timestep {} twice\nhint: `by: [participant]` keeps people apart; rows are moments here, not pictures of cameras",
            moment.0,
            moment.1
        );
        before = Some(moment);
    }
    Ok(())
}

fn ordered(mut order: Vec<(i64, usize)>) -> Result<Vec<(i64, usize)>> {
    order.sort_unstable();
    let twice = order.windows(2).find(|pair| pair[0].0 == pair[1].0);
    let timestep = twice.map_or(0, |pair| pair[0].0);
    ensure!(
        twice.is_none(),
        "timestep {timestep} is there twice\nhint: `by:` has to name what tells sequences apart, such as `by: [participant, sequence]`, and cameras where there are several"
    );
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_once() {
        assert!(once([("a", 1), ("a", 2), ("b", 1)].into_iter()).is_ok() && once([].into_iter()).is_ok());
        let error = once([("a", 1), ("b", 7), ("b", 7)].into_iter()).unwrap_err().to_string();
        assert!(error.contains("sequence b has timestep 7 twice") && error.contains("`by: [participant]`"), "{error}");
    }

    #[test]
    fn rows_come_in_the_order_of_time_and_no_timestep_comes_twice() {
        assert_eq!(ordered(vec![(7, 0), (-1, 1), (3, 2)]).unwrap(), [(-1, 1), (3, 2), (7, 0)]);
        let error = ordered(vec![(3, 0), (5, 1), (3, 2)]).unwrap_err().to_string();
        assert!(error.contains("timestep 3 is there twice") && error.contains("`by:`"), "{error}");
    }
}
