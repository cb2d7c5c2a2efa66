//! A few pictures of a capture, laid out on disk in each layout that the source stages read: for `survey_layouts`.
//!
//! Pictures, mattes, videos, calibration, colours and points are those of the capture. Nobody tracked its people with
//! FLAME or with a published NPHM: these files hold the neutral face. Writes; reads nothing back.

use crate::common::media::Image;
use anyhow::{Context, Result};
use datasets::nersemble::{self, DepthMap, FlameFrame};
use datasets::nphm_tracking::{self, Tracked};
use geometry::cloud::PointCloud;
use geometry::{Camera, pcd};
use glam::{DMat4, DQuat, DVec3};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A picture of the capture, and what belongs to it.
pub struct Sample {
    /// Its sequence.
    pub sequence: String,
    /// Serial of its camera.
    pub camera: String,
    /// Number of the frame.
    pub timestep: u32,
    /// The picture.
    pub image: Image,
    /// Its matte.
    pub matte: Image,
    /// The video it is of.
    pub video: PathBuf,
    /// The video of the mattes.
    pub matte_video: PathBuf,
    /// How it was seen.
    pub seen: Camera,
    /// The camera's colours: 3 x 3, multiplied with linear light.
    pub colours: [f64; 9],
    /// The points of the moment.
    pub cloud: PointCloud,
}

/// The participant that the samples are said to be of.
pub const PARTICIPANT: u32 = 1;

/// A layout: where its samples are read from below the folder that they were written to, and the function that writes
/// them.
pub type Layout = (&'static str, fn(&Path, &[Sample]) -> Result<()>);

/// All of them, those of NeRSemble first.
pub const NERSEMBLE: [Layout; 4] =
    [("download", download), ("benchmark", benchmark), ("release", release), ("avatars/nersemble", avatars)];
/// Those of captures of one's own.
pub const FOLDERS: [Layout; 2] = [("transforms", transforms), ("colmap", colmap)];

/// The samples by camera, the first of each.
fn cameras(samples: &[Sample]) -> BTreeMap<&str, &Sample> {
    samples.iter().rev().map(|sample| (sample.camera.as_str(), sample)).collect()
}

fn rig(samples: &[Sample]) -> Vec<(String, Camera)> {
    cameras(samples).into_iter().map(|(serial, sample)| (serial.to_string(), sample.seen.clone())).collect()
}

fn person(root: &Path) -> PathBuf {
    root.join(format!("{PARTICIPANT:03}"))
}

/// The path of a file below a folder; the folders it needs are made.
fn place(root: &Path, name: &str) -> Result<PathBuf> {
    let path = root.join(name);
    let folder = path.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(path)
}

fn text(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = place(root, name)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn videos(root: &Path, samples: &[Sample], mattes: bool) -> Result<()> {
    for (serial, sample) in cameras(samples) {
        let images = nersemble::video_path(root, PARTICIPANT, &sample.sequence, serial);
        let alphas = nersemble::alpha_path(root, PARTICIPANT, &sample.sequence, serial);
        for (from, to) in
            [(&sample.video, images), (&sample.matte_video, alphas)].into_iter().take(1 + usize::from(mattes))
        {
            std::fs::copy(from, place(root, &to.to_string_lossy())?)?;
        }
    }
    Ok(())
}

fn download(root: &Path, samples: &[Sample]) -> Result<()> {
    nersemble::write_calibration(root, PARTICIPANT, &rig(samples))?;
    colours(root, samples)?;
    for (serial, sample) in cameras(samples) {
        let (width, height) = (sample.image.width, sample.image.height);
        let white = Image::new(width, height, 3, vec![255; width * height * 3]);
        white.write_jpeg(&place(&person(root), &format!("sequences/BACKGROUND/image_{serial}.jpg"))?, 95)?;
    }
    videos(root, samples, false)
}

fn colours(root: &Path, samples: &[Sample]) -> Result<()> {
    let colours: Vec<_> =
        cameras(samples).iter().map(|(serial, sample)| (serial.to_string(), sample.colours)).collect();
    Ok(nersemble::write_colours(root, PARTICIPANT, &colours)?)
}

fn benchmark(root: &Path, samples: &[Sample]) -> Result<()> {
    let path = nersemble::write_calibration(root, PARTICIPANT, &rig(samples))?;
    // the benchmark has a matrix for each camera, also where all are equal
    let mut calibration: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let own: Map<String, Value> = rig(samples)
        .iter()
        .map(|(serial, camera)| {
            let rows: Vec<Value> = camera.intrinsics_row_major().chunks(3).map(Value::from).collect();
            (serial.clone(), Value::from(rows))
        })
        .collect();
    calibration["intrinsics"] = Value::from(own);
    std::fs::write(&path, calibration.to_string())?;
    colours(root, samples)?;
    for sample in samples {
        let name = format!("sequences/{}/pointclouds/frame_{:05}.pcd", sample.sequence, sample.timestep);
        pcd::write_cloud(&place(&person(root), &name)?, &sample.cloud)?;
        let name = format!("sequences/{}/tracking/flame2023_tracking_v2.npz", sample.sequence);
        nersemble::write_flame(&place(&person(root), &name)?, &neutral(samples, &sample.sequence))?;
    }
    videos(root, samples, true)
}

/// FLAME's neutral face in each frame of a sequence.
fn neutral(samples: &[Sample], sequence: &str) -> Vec<FlameFrame> {
    let mut timesteps: Vec<u32> = samples.iter().filter(|s| s.sequence == sequence).map(|s| s.timestep).collect();
    timesteps.sort_unstable();
    timesteps.dedup();
    let frame = |timestep| FlameFrame {
        timestep,
        shape: vec![0.0; 300],
        expression: vec![0.0; 100],
        rotation: [0.0; 3],
        translation: [0.0; 3],
        scale: 1.0,
        jaw: [0.0; 3],
        neck: Some([0.0; 3]),
        eyes: Some([0.0; 6]),
    };
    timesteps.into_iter().map(frame).collect()
}

/// Affine, and changing nothing: frames are corrected already.
const SAME: [f64; 12] = [1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0.];

fn release(root: &Path, samples: &[Sample]) -> Result<()> {
    let written = nersemble::write_calibration(root, PARTICIPANT, &rig(samples))?;
    let person = person(root);
    std::fs::rename(written, place(&person, "camera_params.json")?)?;
    for Sample { sequence, camera, timestep, image, matte, seen, cloud, .. } in samples {
        let frame = format!("sequences/{sequence}/frame_{timestep:05}");
        image.write_png(&place(&person, &format!("{frame}/images-2x-73fps/cam_{camera}.png"))?)?;
        matte.write_png(&place(&person, &format!("{frame}/alpha_map-73fps/cam_{camera}.png"))?)?;
        let depths = place(&person, &format!("{frame}/colmap-73fps/depth_maps_compressed/cam_{camera}.png"))?;
        nersemble::write_depth(&depths, &depth(seen, cloud))?;
        nersemble::write_affine(
            &place(&person, &format!("annotations/{sequence}/color_correction/{camera}.npy"))?,
            &SAME,
        )?;
    }
    Ok(())
}

/// How far the nearest point is that each pixel shows.
fn depth(camera: &Camera, cloud: &PointCloud) -> DepthMap {
    let (width, height) = (camera.width, camera.height);
    let mut metres = vec![0.0f32; width as usize * height as usize];
    for point in &cloud.positions {
        let (px, z) = camera.project(point.as_dvec3());
        let inside = z > 0.0 && px.min_element() >= 0.0 && px.x < f64::from(width) && px.y < f64::from(height);
        if inside {
            let pixel = &mut metres[px.y as usize * width as usize + px.x as usize];
            *pixel = if *pixel == 0.0 { z as f32 } else { pixel.min(z as f32) };
        }
    }
    DepthMap { width, height, metres }
}

fn avatars(root: &Path, samples: &[Sample]) -> Result<()> {
    let written = nersemble::write_calibration(root, PARTICIPANT, &rig(samples))?;
    let calibrations = nersemble::read_calibration(&written)?;
    let seen = &samples.first().context("there are no pictures to lay out")?.seen;
    nersemble::write_diffusion_avatars_calibration(&person(root), &calibrations, (seen.width, seen.height))?;
    std::fs::remove_file(written)?;
    let above = root.parent().context("the data lie in a folder")?;
    for Sample { sequence, camera, timestep, image, matte, .. } in samples {
        let frame = nersemble::frame_folder(PARTICIPANT, sequence, *timestep);
        image.write_jpeg(&place(root, &format!("{frame}/images-2x/cam_{camera}.jpg"))?, 95)?;
        matte.write_png(&place(root, &format!("{frame}/alpha_map/cam_{camera}.png"))?)?;
        let annotations = format!("sequences/{sequence}/annotations");
        nersemble::write_affine(
            &place(&person(root), &format!("{annotations}/color_correction/{camera}.npy"))?,
            &SAME,
        )?;
        let flame = place(&person(root), &format!("{annotations}/tracking/FLAME2023_v2/tracked_flame_params.npz"))?;
        nersemble::write_flame(&flame, &neutral(samples, sequence))?;
        let fit = Tracked { participant: PARTICIPANT, sequence: sequence.clone(), timestep: *timestep };
        nphm_tracking::write_expression(&place(above, &fit.expression())?, &[0.0; 200])?;
    }
    Ok(())
}

fn transforms(root: &Path, samples: &[Sample]) -> Result<()> {
    let mut frames = Vec::new();
    for Sample { camera, timestep, image, matte, seen, .. } in samples {
        let (picture, mask) =
            (format!("images/{camera}_{timestep:05}.png"), format!("masks/{camera}_{timestep:05}.png"));
        image.write_png(&place(root, &picture)?)?;
        matte.write_png(&place(root, &mask)?)?;
        // OpenGL's axes: y up, z back
        let pose = seen.world_to_cam.inverse() * DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0));
        let rows: Vec<Value> = pose.transpose().to_cols_array().chunks(4).map(Value::from).collect();
        let k = seen.intrinsics_row_major();
        frames.push(json!({
            "file_path": picture, "mask_path": mask, "camera_label": camera, "timestep_index": timestep, "transform_matrix": rows,
            "fl_x": k[0], "fl_y": k[4], "cx": k[2], "cy": k[5], "w": seen.width, "h": seen.height,
        }));
    }
    text(root, "transforms.json", &json!({ "camera_model": "PINHOLE", "frames": frames }).to_string())
}

fn colmap(root: &Path, samples: &[Sample]) -> Result<()> {
    let (mut lenses, mut images) = (String::new(), String::new());
    let numbers: BTreeMap<&str, usize> = cameras(samples).into_keys().zip(1..).collect();
    for (serial, sample) in cameras(samples) {
        let (k, size) = (sample.seen.intrinsics_row_major(), (sample.seen.width, sample.seen.height));
        lenses += &format!("{} PINHOLE {} {} {} {} {} {}\n", numbers[serial], size.0, size.1, k[0], k[4], k[2], k[5]);
    }
    for (id, Sample { camera, timestep, image, matte, seen, .. }) in samples.iter().enumerate() {
        let name = format!("cam_{camera}/frame_{timestep:05}.png");
        image.write_png(&place(root, &format!("images/{name}"))?)?;
        matte.write_png(&place(root, &format!("masks/{name}"))?)?;
        let (_, q, t) = seen.world_to_cam.to_scale_rotation_translation();
        let DQuat { x, y, z, w } = q.normalize();
        images +=
            &format!("{} {w} {x} {y} {z} {} {} {} {} {name}\n\n", id + 1, t.x, t.y, t.z, numbers[camera.as_str()]);
    }
    text(root, "sparse/0/cameras.txt", &lenses)?;
    text(root, "sparse/0/images.txt", &images)
}
