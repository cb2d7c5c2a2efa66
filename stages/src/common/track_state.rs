//! How far the tracking of a sequence has come, on disk: what `track_head` goes on from after a kill.
//!
//! No stage. A checkpoint (`trainer::Checkpoints`) holds all frames that are done, bit for bit; meshes lie beside them,
//! each written under another name and renamed when it is complete. Whatever cannot be read counts as not done. Knows
//! no model and no points.

use crate::common::trainer::Checkpoints;
use anyhow::{Context, Result, ensure};
use geometry::ply;
use models::nphm::fit::Frame;
use models::nphm::pose::Pose;
use models::weights::{self, Precision, Tensors};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Frames in the order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// Each fitted after the one before.
    pub fitted: Vec<Frame>,
    /// Those of them that were refined together since, from the first on; none before all are fitted.
    pub refined: Vec<Frame>,
}

/// The folder that it lies in.
pub struct TrackState {
    checkpoints: Checkpoints,
    meshes: PathBuf,
}

impl TrackState {
    /// In a scratch folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(scratch: &Path) -> Result<TrackState> {
        let meshes = scratch.join("meshes");
        std::fs::create_dir_all(&meshes).with_context(|| format!("cannot make {}", meshes.display()))?;
        Ok(TrackState { checkpoints: Checkpoints::new(scratch), meshes })
    }

    /// What was done of a sequence of `frames` frames; nothing if nothing can be read.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn resume(&self, frames: usize, log: impl Fn(&str)) -> Result<Done> {
        let mut done = Done::default();
        self.checkpoints.resume(
            |dir| {
                let found = read(&dir.join(FILE))?;
                ensure!(
                    found.fitted.len() <= frames && found.refined.len() <= found.fitted.len(),
                    "it is of another sequence"
                );
                done = found;
                Ok(())
            },
            &log,
        )?;
        if !done.fitted.is_empty() {
            log(&format!(
                "goes on after {} fitted and {} refined frames of {frames}",
                done.fitted.len(),
                done.refined.len()
            ));
        }
        Ok(done)
    }

    /// Keeps what is done.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, done: &Done) -> Result<()> {
        let step = done.fitted.len() + done.refined.len();
        self.checkpoints.save(step as u64, |dir| {
            Ok(weights::write(&dir.join(FILE), &tensors(done), &Default::default(), Precision::Keep)?)
        })
    }

    /// A mesh under this name: the one that is there, or else what `make` writes to the path it is given.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn mesh(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.meshes.join(name);
        // what a power cut left of a file is no mesh
        if ply::read(&path).is_err() {
            let partial = self.meshes.join("partial");
            make(&partial)?;
            std::fs::rename(&partial, &path).with_context(|| format!("cannot finish {}", path.display()))?;
        }
        Ok(path)
    }
}

const FILE: &str = "frames.safetensors";
const PARTS: [&str; 2] = ["fitted", "refined"];

/// Codes `[F, d]`, and `[F, 8]`: rotation, translation, residual, kept.
fn tensors(done: &Done) -> Tensors {
    let mut all = Tensors::new();
    for (name, frames) in PARTS.iter().zip([&done.fitted, &done.refined]).filter(|(_, frames)| !frames.is_empty()) {
        let count = frames.len() as i64;
        let codes: Vec<f32> = frames.iter().flat_map(|f| f.z_ex.iter().copied()).collect();
        let numbers = |f: &Frame| f.pose.rotation.into_iter().chain(f.pose.translation).chain([f.residual, f.kept]);
        let numbers: Vec<f64> = frames.iter().flat_map(numbers).collect();
        all.insert(format!("{name}.codes"), Tensor::from_slice(&codes).reshape([count, -1]));
        all.insert(format!("{name}.numbers"), Tensor::from_slice(&numbers).reshape([count, 8]));
    }
    all
}

fn read(path: &Path) -> Result<Done> {
    let all = weights::read(path)?;
    let [fitted, refined] = PARTS.map(|name| -> Result<Vec<Frame>> {
        let (Some(codes), Some(numbers)) = (all.get(&format!("{name}.codes")), all.get(&format!("{name}.numbers")))
        else {
            return Ok(Vec::new());
        };
        let (size, numbers_size) = (codes.size(), numbers.size());
        ensure!(
            size.len() == 2 && numbers_size == [size[0], 8] && numbers.kind() == Kind::Double,
            "{} is damaged",
            path.display()
        );
        let codes: Vec<f32> = codes.reshape([-1]).try_into()?;
        let numbers: Vec<f64> = numbers.reshape([-1]).try_into()?;
        let frame = |(code, n): (&[f32], &[f64; 8])| Frame {
            z_ex: code.to_vec(),
            pose: Pose { rotation: [n[0], n[1], n[2]], translation: [n[3], n[4], n[5]] },
            residual: n[6],
            kept: n[7],
        };
        Ok(codes.chunks_exact(size[1].max(1) as usize).zip(numbers.as_chunks().0).map(frame).collect())
    });
    Ok(Done { fitted: fitted?, refined: refined? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_comes_back_to_the_last_bit() {
        let scratch = std::env::temp_dir().join(format!("effigy-track-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let frame = |i: usize| Frame {
            z_ex: vec![0.1 * i as f32, f32::MIN_POSITIVE, -1.0 / 3.0],
            pose: Pose { rotation: [1.0 / 3.0, 0.0, -1e-300], translation: [std::f64::consts::PI, i as f64, 0.1] },
            residual: 1e-3 / 7.0,
            kept: 0.9,
        };
        let state = TrackState::new(&scratch).unwrap();
        assert_eq!(state.resume(5, |_| ()).unwrap(), Done::default());
        let mut done = Done { fitted: (0..3).map(frame).collect(), refined: Vec::new() };
        state.save(&done).unwrap();
        assert_eq!(state.resume(5, |_| ()).unwrap(), done);
        done.refined = (1..3).map(frame).collect();
        state.save(&done).unwrap();
        assert_eq!(state.resume(5, |_| ()).unwrap(), done);
        // a checkpoint that is damaged gives way to the one before, and one of a longer sequence is none
        std::fs::write(scratch.join("step_000005").join(FILE), b"half").unwrap();
        done.refined.clear();
        assert_eq!(state.resume(5, |_| ()).unwrap(), done);
        assert_eq!(state.resume(2, |_| ()).unwrap().fitted.len(), 0);

        let mesh = geometry::Mesh { positions: vec![glam::Vec3::ZERO; 3], faces: vec![[0, 1, 2]] };
        let make = |path: &Path| Ok(ply::write_mesh(path, &mesh, &[])?);
        let path = state.mesh("00001.ply", make).unwrap();
        assert_eq!(state.mesh("00001.ply", |_| anyhow::bail!("it is there")).unwrap(), path);
        std::fs::write(&path, b"ply\n").unwrap();
        state.mesh("00001.ply", make).unwrap();
        assert_eq!(ply::read(&path).unwrap().mesh, mesh);
        // of a frame without a fit the residual is no number
        let unseen = Done { fitted: vec![Frame { residual: f64::NAN, ..frame(0) }], refined: Vec::new() };
        state.save(&unseen).unwrap();
        assert!(state.resume(5, |_| ()).unwrap().fitted[0].residual.is_nan());
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
