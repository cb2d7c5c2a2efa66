//! The order of a sequence's rows in time.
//!
//! No stage, but what those share whose group is a sequence: they name files by the timestep, or look from one row to the next, so one
//! timestep twice would mix what does not belong together. Knows no other column.

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
    fn rows_come_in_the_order_of_time_and_no_timestep_comes_twice() {
        assert_eq!(ordered(vec![(7, 0), (-1, 1), (3, 2)]).unwrap(), [(-1, 1), (3, 2), (7, 0)]);
        let error = ordered(vec![(3, 0), (5, 1), (3, 2)]).unwrap_err().to_string();
        assert!(error.contains("timestep 3 is there twice") && error.contains("`by:`"), "{error}");
    }
}
