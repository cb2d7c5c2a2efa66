//! When and with what a synthetic person is filmed: the moments of a sequence, and the cameras of the rig.
//!
//! No stage, but what the capture and its truth have to agree on. Knows no heads.

use anyhow::Result;
use datasets::capture;
use datasets::sequences::sequence;
use geometry::Camera;

/// All cameras of the rig.
pub fn cameras() -> Vec<String> {
    capture::SERIALS.map(str::to_string).to_vec()
}

/// The moments of a sequence at which frames are taken: seconds.
///
/// # Errors
/// If there is no such sequence.
pub fn moments(name: &str, frames: usize) -> Result<Vec<f32>> {
    let seconds = sequence(name)?.seconds;
    // the middles of equal parts: a sequence begins and ends with the neutral face, which tells little
    Ok((0..frames).map(|i| seconds * (i as f32 + 0.5) / frames as f32).collect())
}

/// The cameras with these serials.
///
/// # Errors
/// If the rig does not have one of them.
pub fn rig(serials: &[String], width: u32, height: u32) -> Result<Vec<(String, Camera)>> {
    if let Some(unknown) = serials.iter().find(|serial| !capture::SERIALS.contains(&serial.as_str())) {
        anyhow::bail!("the rig has no camera `{unknown}`; it has {}", capture::SERIALS.join(", "));
    }
    Ok(capture::rig(&serials.iter().map(String::as_str).collect::<Vec<_>>(), width, height))
}
