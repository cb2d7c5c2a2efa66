//! From the head model to the world, and from there to a camera's pixels. Knows no networks and no textures.

use anyhow::{Context, Result, bail, ensure};
use geometry::{Camera, gbuffer, pose};
use glam::{DMat3, DMat4, DVec3};
use serde_json::Value;
use tch::Tensor;

use crate::check::Checks;
use crate::folder::Folder;

fn points(case: &Folder, name: &str) -> Result<Vec<DVec3>> {
    Ok(case.io.numbers(name)?.chunks_exact(3).map(DVec3::from_slice).collect())
}

fn row_major(m: DMat3) -> [f64; 9] {
    m.transpose().to_cols_array()
}

/// The scale along each axis, or the one along all; of several rows the first counts.
pub fn scale(case: &Folder) -> Result<DVec3> {
    let (size, values) = (case.io.raw("in.scale")?.size(), case.io.numbers("in.scale")?);
    match (size.last(), &values[..]) {
        (Some(3), [x, y, z, ..]) => Ok(DVec3::new(*x, *y, *z)),
        (Some(1) | None, [all, ..]) => Ok(DVec3::splat(*all)),
        _ => bail!("in.scale is {size:?}: rows of one number or of three are expected"),
    }
}

/// Points of the head model in the world, by the poses of a FLAME model.
pub fn flame_to_world(case: &Folder, checks: &mut Checks) -> Result<()> {
    let (rotations, translations) = (points(case, "in.rotation")?, points(case, "in.translation")?);
    let scale = scale(case)?;
    let per_flame = match case.meta["config"].get("nphm_over_flame") {
        Some(_) => case.config("nphm_over_flame")?,
        None => pose::NPHM_PER_FLAME,
    };
    ensure!(per_flame > 0.0, "config nphm_over_flame: {per_flame} is not above 0");
    // what our transform divides by is left when it is done
    let own_scale = pose::NPHM_PER_FLAME / per_flame;
    let vertices: Vec<DVec3> = points(case, "in.vertices_nphm")?.into_iter().map(|v| v * own_scale).collect();
    let (mut matrices, mut world) = (Vec::new(), Vec::new());
    for (&rotation, &translation) in rotations.iter().zip(&translations) {
        matrices.extend(row_major(pose::euler_xyz(rotation)));
        let to_world = pose::FlamePose { rotation, translation, scale }.nphm_to_world();
        world.extend(vertices.iter().flat_map(|v| to_world.transform_point3(*v).to_array()));
    }
    case.f64(checks, "out.rotation_matrix", &matrices)?;
    case.f64(checks, "out.world", &world)
}

/// The sizes that were padded: the tensor `in.size`, or the pairs in brackets of the note on `out.padded_size`.
pub fn sizes(case: &Folder) -> Result<Vec<u32>> {
    if let Ok(sizes) = case.io.integers("in.size") {
        return Ok(sizes.into_iter().map(|n| n as u32).collect());
    }
    let mut notes = case.meta["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let (_, words) = notes
        .find_map(|note| note.split_once("out.padded_size"))
        .context("neither in.size nor a note says what out.padded_size is of")?;
    pairs(words)
}

/// The numbers of all `(1,2)` in a text.
fn pairs(text: &str) -> Result<Vec<u32>> {
    let brackets = text.split('(').skip(1).filter_map(|part| part.split_once(')')).map(|(inner, _)| inner);
    let numbers = brackets.flat_map(|inner| inner.split(',')).map(|number| number.trim().parse::<u32>());
    numbers.collect::<Result<Vec<u32>, _>>().with_context(|| format!("pairs of sizes expected in `{text}`"))
}

/// Depths and projections of a camera, and sizes of padded images.
pub fn camera(case: &Folder, checks: &mut Checks) -> Result<()> {
    let (near, far) = (case.config("near")?, case.config("far")?);
    ensure!(0.0 < near && near < far, "config near and far: there is nothing between planes at {near} and {far}");
    let depths = case.io.numbers("in.camera_depth")?;
    let clip: Vec<f64> = depths.iter().map(|d| gbuffer::clip_depth_at(*d, near, far)).collect();
    if (near, far) == (gbuffer::NEAR, gbuffer::FAR) {
        checks.exact(
            "the renderer's clip depth",
            depths.iter().map(|d| gbuffer::clip_depth(*d)).eq(clip.iter().copied()),
        );
    }
    case.f64(checks, "out.z_clip", &clip)?;
    let network: Vec<f32> = clip.iter().map(|z| gbuffer::network_depth(*z as f32)).collect();
    case.f32(checks, "out.network_depth", &Tensor::from_slice(&network))?;

    let rotation = pose::rodrigues(points(case, "in.rodrigues")?[0]);
    case.f64(checks, "out.rotation", &row_major(rotation))?;
    let world_to_cam = DMat4::from_mat3_translation(rotation, points(case, "in.t")?[0]);
    case.f64(checks, "out.world_to_gl", &pose::opengl_from_opencv(world_to_cam).transpose().to_cols_array())?;
    let size: Vec<u32> = serde_json::from_value(case.meta["config"]["render_size"].clone()).context("render_size")?;
    let k: [f64; 9] = case.io.numbers("in.K")?.try_into().map_err(|_| anyhow::anyhow!("K is not 3x3"))?;
    let camera = Camera::from_row_major(&k, &world_to_cam.transpose().to_cols_array(), size[0], size[1]);
    let world = points(case, "in.points_world")?;
    let pixels: Vec<f64> = world.iter().flat_map(|p| camera.project(*p).0.to_array()).collect();
    case.f64(checks, "out.pixels", &pixels)?;
    let clip = world.iter().flat_map(|p| gbuffer::clip_coordinates(&camera, *p, near, far).to_array());
    case.f64(checks, "out.clip", &clip.collect::<Vec<f64>>())?;
    let padded: Vec<i64> = sizes(case)?.iter().map(|&n| i64::from(gbuffer::padded_size(n))).collect();
    checks.exact("out.padded_size", padded == case.io.integers("out.padded_size")?);
    Ok(())
}
