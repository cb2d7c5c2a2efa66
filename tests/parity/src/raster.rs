//! The rasteriser against brute-force ray casting in f64, and the top-left rule bit by bit.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use geometry::Camera;
use geometry::raster::{Raster, rasterize_at};
use glam::{DVec3, Vec3};
use serde_json::Value;

use crate::check::{Case, Checks, Report, json, largest, number};

/// What is known of a scene: what is read, and counts and ranges of what its maps show.
const FIELDS: [&str; 15] = [
    "K",
    "R",
    "t",
    "width",
    "height",
    "near",
    "pixel_center",
    "note",
    "triangles",
    "covered",
    "safe_pixels",
    "safe_id_pixels",
    "depth_range",
    "max_canonical_error_if_affine",
    "max_coverage",
];

/// Runs every scene of the folder.
pub fn run(dir: &Path, report: &mut Report) {
    match json(&dir.join("scenes.json")) {
        Ok(Value::Object(scenes)) => {
            if scenes.is_empty() {
                report.fail("raster", "scenes.json lists no scenes");
            }
            for (name, about) in &scenes {
                report.case(&format!("raster/{name}"), |checks| scene(dir, name, about, checks));
            }
            crate::strangers(dir, "raster", report, |file| {
                file == "scenes.json" || file.strip_suffix(".safetensors").is_some_and(|name| scenes.contains_key(name))
            });
        }
        Ok(_) => report.fail("raster", "scenes.json is not a table of scenes"),
        Err(error) => report.fail("raster", &format!("{error:#}")),
    }
}

fn vectors(io: &Case, name: &str) -> Result<Vec<[f32; 3]>> {
    let values: Vec<f32> = Vec::try_from(io.get(name)?.flatten(0, -1))?;
    Ok(values.chunks_exact(3).map(|v| [v[0], v[1], v[2]]).collect())
}

fn scene(dir: &Path, name: &str, about: &Value, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join(format!("{name}.safetensors")))?;
    checks.unknown_fields(about, |field| FIELDS.contains(&field));
    let rows = |key: &str| -> Result<Vec<Vec<f64>>> {
        serde_json::from_value(about[key].clone()).with_context(|| format!("{key} of {name}"))
    };
    let k: Vec<f64> = rows("K")?.concat();
    let t: Vec<f64> = serde_json::from_value(about["t"].clone()).context("t")?;
    let mut w2c: Vec<f64> = rows("R")?.iter().zip(&t).flat_map(|(row, t)| [row[0], row[1], row[2], *t]).collect();
    w2c.extend([0.0, 0.0, 0.0, 1.0]);
    let matrix = "a matrix has another size";
    let camera = Camera::from_row_major(
        k.as_slice().try_into().context(matrix)?,
        w2c.as_slice().try_into().context(matrix)?,
        number(about, "width")? as u32,
        number(about, "height")? as u32,
    );
    let positions: Vec<Vec3> = vectors(&io, "vertices")?.into_iter().map(Vec3::from).collect();
    let faces: Vec<[u32; 3]> =
        io.integers("faces")?.chunks_exact(3).map(|f| std::array::from_fn(|k| f[k] as u32)).collect();
    let (near, center) = (number(about, "near")? as f32, number(about, "pixel_center")?);
    stated(about, "triangles", faces.len() as f64, checks)?;
    shapes(&io, about, faces.len())?;
    ensure!(
        faces.iter().flatten().all(|v| (*v as usize) < positions.len()),
        "faces name vertices that are not there: there are {}",
        positions.len()
    );
    let draw = |faces: &[[u32; 3]]| rasterize_at(&positions, faces, &camera, near, center);
    if io.raw("tri_masks").is_ok() {
        coverage(&io, &faces, draw, checks)?;
    } else {
        maps(&io, &positions, &faces, &draw(&faces), checks)?;
    }
    summary(&io, about, checks)?;
    io.all_asked(|_| false)
}

/// Compares a number that scenes.json states with the one that is found.
fn stated(about: &Value, key: &str, found: f64, checks: &mut Checks) -> Result<()> {
    if about.get(key).is_some() {
        checks.error(format!("{key} of scenes.json"), (number(about, key)? - found).abs(), 0.0);
    }
    Ok(())
}

/// Fails if a tensor does not have the scene's size, or the mesh's.
fn shapes(io: &Case, about: &Value, faces: usize) -> Result<()> {
    let (height, width) = (number(about, "height")? as i64, number(about, "width")? as i64);
    let vertices = io.raw("vertices")?.size().first().copied().unwrap_or(0);
    let faces = faces as i64;
    for name in io.names() {
        let expected = match name {
            "vertices" | "vertex_normals" | "vertex_canonical" => vec![vertices, 3],
            "faces" => vec![faces, 3],
            "tri_masks" => vec![faces, height, width],
            "mask" | "tri_id" | "depth" | "safe" | "safe_id" | "coverage_count" => vec![height, width],
            "normal_world" | "position_world" | "canonical" => vec![height, width, 3],
            _ => continue, // that nobody knows it is told in the end
        };
        let found = io.raw(name)?.size();
        ensure!(found == expected, "{name} is {found:?}, but {expected:?} is expected of {width} x {height} pixels");
    }
    Ok(())
}

/// Compares counts and ranges that scenes.json states with the reference's own maps, which ours are compared with.
fn summary(io: &Case, about: &Value, checks: &mut Checks) -> Result<()> {
    let set = |name: &str| -> Result<f64> { Ok(io.bytes(name)?.iter().filter(|n| **n != 0).count() as f64) };
    if io.raw("tri_masks").is_ok() {
        stated(about, "covered", set("coverage_count")?, checks)?;
        let most = io.bytes("coverage_count")?.into_iter().max().unwrap_or(0);
        return stated(about, "max_coverage", f64::from(most), checks);
    }
    for (key, map) in [("covered", "mask"), ("safe_pixels", "safe"), ("safe_id_pixels", "safe_id")] {
        stated(about, key, set(map)?, checks)?;
    }
    let depths: Vec<f64> = io.numbers("depth")?.into_iter().filter(|depth| *depth > 0.0).collect();
    if let (Some(range), false) = (about.get("depth_range").filter(|range| !range.is_null()), depths.is_empty()) {
        let range: [f64; 2] = serde_json::from_value(range.clone()).context("depth_range")?;
        let found = depths.iter().fold([f64::INFINITY, 0.0], |[low, high], d| [d.min(low), d.max(high)]);
        // stated in f64, stored in f32
        let error = largest((0..2).map(|end| (range[end] - found[end]).abs() / found[end]));
        checks.error("depth_range of scenes.json, relative", error, 1e-6);
    }
    Ok(())
}

/// Every triangle alone must cover exactly the given pixels, in either winding.
fn coverage(io: &Case, faces: &[[u32; 3]], draw: impl Fn(&[[u32; 3]]) -> Raster, checks: &mut Checks) -> Result<()> {
    let (masks, want) = (io.bytes("tri_masks")?, io.bytes("coverage_count")?);
    ensure!(masks.len() == want.len() * faces.len(), "tri_masks does not have a mask per triangle");
    let mut count = vec![0u8; want.len()];
    for (k, (face, mask)) in faces.iter().zip(masks.chunks_exact(want.len())).enumerate() {
        for (winding, face) in [("", *face), (" reversed", [face[0], face[2], face[1]])] {
            let got = draw(&[face]).mask();
            checks.exact(format!("triangle {k}{winding}"), got.iter().zip(mask).all(|(g, m)| *g == (*m != 0)));
            if winding.is_empty() {
                count.iter_mut().zip(got).for_each(|(n, g)| *n += u8::from(g));
            }
        }
    }
    checks.exact("coverage_count", count == want);
    Ok(())
}

/// Whether surfaces go through each other: an edge of one face has its ends on both sides of another, with which it
/// shares no vertex, and meets it.
fn cross(positions: &[Vec3], faces: &[[u32; 3]]) -> bool {
    let corners = |face: &[u32; 3]| face.map(|v| positions[v as usize].as_dvec3());
    let pierces = |from: DVec3, to: DVec3, [a, b, c]: [DVec3; 3]| {
        let normal = (b - a).cross(c - a);
        let (start, end) = (normal.dot(from - a), normal.dot(to - a));
        if start * end >= 0.0 {
            return false;
        }
        let meeting = from + (to - from) * (start / (start - end));
        // a little is allowed for places on the face's own edges
        let inside = |p: DVec3, q: DVec3| normal.dot((q - p).cross(meeting - p)) >= -1e-6 * normal.length_squared();
        inside(a, b) && inside(b, c) && inside(c, a)
    };
    let bounds: Vec<(DVec3, DVec3)> = faces
        .iter()
        .map(|face| {
            let [a, b, c] = corners(face);
            (a.min(b).min(c), a.max(b).max(c))
        })
        .collect();
    let meet = |i: usize, j: usize| {
        let apart = bounds[i].0.cmpgt(bounds[j].1).any() || bounds[j].0.cmpgt(bounds[i].1).any();
        let [first, second] = [&faces[i], &faces[j]];
        if apart || first.iter().any(|v| second.contains(v)) {
            return false;
        }
        let edges = |t: [DVec3; 3]| [(t[0], t[1]), (t[1], t[2]), (t[2], t[0])];
        let (first, second) = (corners(first), corners(second));
        edges(first).iter().any(|(p, q)| pierces(*p, *q, second))
            || edges(second).iter().any(|(p, q)| pierces(*p, *q, first))
    };
    (0..faces.len()).any(|i| (0..i).any(|j| meet(i, j)))
}

fn maps(io: &Case, positions: &[Vec3], faces: &[[u32; 3]], got: &Raster, checks: &mut Checks) -> Result<()> {
    let (safe, safe_id) = (io.bytes("safe")?, io.bytes("safe_id")?);
    let pixels = |flags: &[u8]| -> Vec<usize> { (0..flags.len()).filter(|&i| flags[i] != 0).collect() };
    let (safe, safe_id) = (pixels(&safe), pixels(&safe_id));
    let (mask, ids) = (io.bytes("mask")?, io.integers("tri_id")?);
    let wrong = safe.iter().filter(|&&i| (got.tri_id[i] >= 0) != (mask[i] != 0)).count();
    checks.error("mask, wrong pixels", wrong as f64, 0.0);
    let wrong = safe_id.iter().filter(|&&i| i64::from(got.tri_id[i]) != ids[i]).count();
    checks.error("tri_id, wrong pixels", wrong as f64, 0.0);

    let covered = |i: &&usize| mask[**i] != 0;
    let depth = io.numbers("depth")?;
    let error = |&i: &usize| (f64::from(got.depth[i]) - depth[i]).abs() / depth[i];
    checks.error("depth, relative", largest(safe.iter().filter(covered).map(error)), 1e-4);
    let empty = safe.iter().filter(|&&i| mask[i] == 0).all(|&i| got.depth[i] == 0.0);
    checks.exact("depth is 0 where there is nothing", empty);

    let compare = |map: &str, values: &[[f32; 3]], at: &[usize]| -> Result<(f64, f64)> {
        let (want, got) = (vectors(io, map)?, got.interpolate(faces, values, [0.0; 3]));
        let distance = |i: usize| largest((0..3).map(|c| f64::from((got[i][c] - want[i][c]).abs())));
        let angle = |i: usize| {
            let (a, b) = (Vec3::from(got[i]).as_dvec3(), Vec3::from(want[i]).as_dvec3());
            a.cross(b).length().atan2(a.dot(b)).to_degrees()
        };
        let worst = |f: &dyn Fn(usize) -> f64| largest(at.iter().filter(covered).map(|&i| f(i)));
        Ok((worst(&distance), worst(&angle)))
    };
    let corners: Vec<[f32; 3]> = positions.iter().map(|p| p.to_array()).collect();
    // of a scene in millimetres f32 keeps less than that
    let reach = corners.iter().flatten().fold(0.0, |most: f32, x| most.max(x.abs()));
    checks.error(
        "position_world",
        compare("position_world", &corners, &safe)?.0,
        2e-4_f64.max(4e-6 * f64::from(reach)),
    );
    checks.error("normal_world, degrees", compare("normal_world", &vectors(io, "vertex_normals")?, &safe)?.1, 0.1);
    // Where surfaces cross within a pixel, canonical coordinates are as ambiguous as the triangle.
    let at = if cross(positions, faces) { &safe_id } else { &safe };
    checks.error("canonical", compare("canonical", &vectors(io, "vertex_canonical")?, at)?.0, 2e-4);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square in the plane z = slope x, cut along a diagonal, and another in z = height.
    fn squares(slope: f32, height: f32) -> (Vec<Vec3>, Vec<[u32; 3]>) {
        let square = |z: &dyn Fn(f32) -> f32| {
            [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, y)| Vec3::new(x, y, z(x)))
        };
        let positions = [square(&|x| slope * x), square(&|_| height)].concat();
        (positions, vec![[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    }

    /// A committed scene with another description.
    fn described(name: &str, changes: &Value) -> Result<bool> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/raster");
        let mut about = json(&dir.join("scenes.json")).unwrap()[name].clone();
        changes.as_object().unwrap().iter().for_each(|(key, value)| about[key] = value.clone());
        let mut checks = Checks::default();
        scene(&dir, name, &about, &mut checks)?;
        Ok(checks.hold())
    }

    #[test]
    fn what_scenes_json_states_is_compared() {
        use serde_json::json;
        for scene in ["cube_pc5", "topleft_square"] {
            assert!(described(scene, &json!({})).unwrap());
            for changes in [json!({ "triangles": 5 }), json!({ "covered": 5 })] {
                assert!(!described(scene, &changes).unwrap(), "{scene} {changes}");
            }
            for changes in [json!({ "height": 200 }), json!({ "width": 8 })] {
                let error = described(scene, &changes).unwrap_err().to_string();
                assert!(error.contains("is expected of"), "{error}");
            }
        }
        for changes in
            [json!({ "depth_range": [1.6, 2.7] }), json!({ "safe_pixels": 1 }), json!({ "safe_id_pixels": 1 })]
        {
            assert!(!described("cube_pc5", &changes).unwrap(), "{changes}");
        }
        assert!(!described("topleft_square", &json!({ "max_coverage": 2 })).unwrap());
    }

    #[test]
    fn crossing_surfaces_are_known_by_their_geometry() {
        for (slope, height, expected) in [(0.01, 0.0, true), (0.5, 0.2, true), (0.01, 0.02, false), (0.0, 0.1, false)] {
            let (positions, faces) = squares(slope, height);
            assert_eq!(cross(&positions, &faces), expected, "{slope} {height}");
            // the other order, and the other winding
            let turned: Vec<[u32; 3]> = faces.iter().rev().map(|f| [f[0], f[2], f[1]]).collect();
            assert_eq!(cross(&positions, &turned), expected, "{slope} {height}");
        }
        // faces of one surface share corners and do not count
        let corners = [Vec3::ZERO, Vec3::X, Vec3::Y, Vec3::Z];
        assert!(!cross(&corners, &[[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]));
    }
}
