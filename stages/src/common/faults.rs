//! What readers of `datasets` find wrong, as whoever runs a stage is told of it. Knows no format.

use datasets::fault::Fault;

/// An error with its hint.
pub fn hinted(fault: Fault) -> anyhow::Error {
    anyhow::anyhow!("{fault}\nhint: {}", fault.hint())
}
