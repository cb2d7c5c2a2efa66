//! Image and geometry metrics, each with the definition it is known by.
//!
//! Images are 8-bit, row-major, interleaved; values are value / 255, data range 1. LPIPS is a network and lives in
//! `models`. Knows no tensors, rows, files or reports.

pub mod flicker;
pub mod points;
pub mod psnr;
pub mod quantile;
pub mod ssim;
