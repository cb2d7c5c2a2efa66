//! Marching cubes on fields written as formulas and on stored grids: counts and topology exactly, area, volume and
//! vertices closely.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use geometry::marching_cubes::marching_cubes;
use geometry::mesh::Mesh;
use glam::DVec3;
use serde_json::Value;
use tch::Tensor;

use crate::check::{Case, Checks, Report, json, largest, number, only};
use crate::formula::Formula;

/// Runs every grid of the folder.
pub fn run(dir: &Path, report: &mut Report) {
    let is_grids = |name: &str| name.starts_with("grid") && name.ends_with(".safetensors");
    match json(&dir.join("expected.json")) {
        Ok(Value::Object(cases)) => {
            let mut stored = Vec::new();
            for name in crate::names(dir).iter().filter(|name| is_grids(name.as_str())) {
                match Case::read(&dir.join(name)) {
                    Ok(grids) => stored.push((name.clone(), grids)),
                    Err(error) => report.fail(&format!("mc/{name}"), &format!("{error:#}")),
                }
            }
            if cases.is_empty() {
                report.fail("mc", "expected.json lists no grids");
            }
            for (name, about) in &cases {
                let values = stored.iter().find_map(|(_, grids)| grids.get(name).ok());
                report.case(&format!("mc/{name}"), |checks| grid(name, about, values.as_ref(), checks));
            }
            for (file, grids) in &stored {
                if let Err(error) = grids.all_asked(|_| false) {
                    report.fail(&format!("mc/{file}"), &format!("{error:#}"));
                }
            }
        }
        Ok(_) => report.fail("mc", "expected.json is not a table of grids"),
        Err(error) => report.fail("mc", &format!("{error:#}")),
    }
    crate::strangers(dir, "mc", report, |name| name == "expected.json" || is_grids(name));
}

/// How grids are laid out.
const INDEX_ORDER: &str = "grid[i,j,k], i=x slowest, coordinate=lo+(hi-lo)*i/(n-1)";

/// What is known of a grid, beside words on it and what other programs make of it.
const FIELDS: [&str; 15] = [
    "dims",
    "lo",
    "hi",
    "level",
    "sdf",
    "field",
    "index_order",
    "edge_crossings",
    "exact_grid_hits",
    "analytic_area",
    "analytic_volume",
    "skimage_lewiner",
    "skimage_lorensen",
    "pymcubes",
    "note",
];

/// The grid's values, and the field behind them if its formula is understood: without, a stored grid will do.
fn sampled(
    about: &Value,
    n: [usize; 3],
    position: impl Fn(DVec3) -> DVec3,
    stored: Option<&Tensor>,
    checks: &mut Checks,
) -> Result<(Vec<f32>, Option<Formula>)> {
    let formula = about["sdf"].as_str().or(about["field"].as_str());
    let field = formula.context("there is no formula").and_then(Formula::parse);
    let stored: Option<Vec<f32>> = match stored {
        Some(grid) => {
            let size: Vec<i64> = n.iter().map(|n| *n as i64).collect();
            ensure!(grid.size() == size, "the stored grid is {:?}, dims says {n:?}", grid.size());
            Some(Vec::try_from(grid.flatten(0, -1))?)
        }
        None => None,
    };
    let field = match (field, stored.is_some()) {
        (Ok(field), _) => field,
        (Err(error), true) => {
            checks.remark(format!(
                "{error:#}: the grid is used as it is stored, and vertices are compared with no field"
            ));
            return Ok((stored.unwrap_or_default(), None));
        }
        (Err(error), false) => return Err(error.context("the grid is not stored, and its field is not understood")),
    };
    let mut values = Vec::with_capacity(n.iter().product());
    for i in 0..n[0] {
        for j in 0..n[1] {
            for k in 0..n[2] {
                values.push(field.at(position(DVec3::new(i as f64, j as f64, k as f64))) as f32);
            }
        }
    }
    if let Some(grid) = stored {
        // The last bit depends on the order of roundings; anything more is another field or order.
        let error = |(a, b): (&f32, &f32)| f64::from((a - b).abs() / a.abs().max(1.0));
        let worst = largest(grid.iter().zip(&values).map(error));
        checks.error("the sampled field", worst, 1e-6);
        values = grid;
    }
    Ok((values, Some(field)))
}

fn grid(name: &str, about: &Value, stored: Option<&Tensor>, checks: &mut Checks) -> Result<()> {
    let list = |key: &str| -> Result<[f64; 3]> {
        serde_json::from_value(about[key].clone()).with_context(|| format!("{key} of {name}"))
    };
    only(about, "index_order", &[INDEX_ORDER.into()])?;
    checks.unknown_fields(about, |field| FIELDS.contains(&field));
    let (dims, lo, hi) = (list("dims")?, DVec3::from(list("lo")?), DVec3::from(list("hi")?));
    let n = dims.map(|d| d as usize);
    let position = |g: DVec3| lo + (hi - lo) * g / (DVec3::from(dims) - 1.0);
    let (values, field) = sampled(about, n, position, stored, checks)?;
    let level = number(about, "level")?;
    let mut mesh = marching_cubes(&values, n, level as f32);
    let want = &about["skimage_lewiner"];
    // A vertex on an edge has two coordinates that are whole; in ambiguous cells there are others.
    let on_edge = |p: &&glam::Vec3| p.to_array().iter().filter(|c| c.fract() == 0.0).count() >= 2;
    let on_edges = mesh.positions.iter().filter(on_edge).count();
    checks.error("vertices on edges", (on_edges as f64 - number(about, "edge_crossings")?).abs(), 0.0);
    if let Some(vertices) = want.get("vertices").and_then(Value::as_f64) {
        checks.error("vertices", (mesh.positions.len() as f64 - vertices).abs(), 0.0);
    }
    // Where there is no surface, the reference has none to measure.
    let faces = if want.is_null() { 0.0 } else { number(want, "faces")? };
    checks.error("faces", (mesh.faces.len() as f64 - faces).abs(), 0.0);
    if faces == 0.0 {
        return Ok(());
    }
    checks.error("euler", (mesh.euler_number() as f64 - number(want, "euler")?).abs(), 0.0);
    checks.exact("watertight", Some(mesh.is_watertight()) == want["watertight"].as_bool());
    let components = mesh.face_components().into_iter().max().map_or(0, |last| last + 1);
    checks.error("components", (f64::from(components) - number(want, "components")?).abs(), 0.0);

    let places: Vec<DVec3> = mesh.positions.iter().map(|p| position(p.as_dvec3())).collect();
    if let Some(field) = field {
        let off = largest(places.iter().map(|p| (field.at(*p) - level).abs()));
        checks.error("distance to the surface", off, 1e-6 + 1.01 * number(want, "max_vertex_dist_to_surface")?);
    }
    mesh.positions = places.iter().map(|p| p.as_vec3()).collect();
    // an axis that runs backwards mirrors the mesh
    let is_mirrored = (hi - lo).to_array().iter().filter(|extent| **extent < 0.0).count() % 2 == 1;
    sizes(&mesh, want, (f64::from(values[0]) >= level) != is_mirrored, checks)
}

/// Area, and what only a closed surface has: a volume, and a side that looks outwards. That is the side where the field
/// is higher, so faces look inwards if it is not so around the surface.
fn sizes(mesh: &Mesh, want: &Value, is_higher_around: bool, checks: &mut Checks) -> Result<()> {
    let relative = |got: f64, key: &str| -> Result<f64> {
        let want = number(want, key)?;
        Ok((got - want).abs() / want.abs().max(f64::MIN_POSITIVE))
    };
    checks.error("area, relative", relative(mesh.area(), "area")?, 1e-4);
    if mesh.is_watertight() {
        checks.error("volume, relative", relative(mesh.volume().abs(), "volume_abs")?, 1e-4);
        checks.exact("faces look to the higher side", (mesh.volume() > 0.0) == is_higher_around);
    } else {
        checks.remark("the surface leaves the grid: it has neither a volume nor an outside to compare");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sphere of radius 0.6 about the origin in a grid from -1 to 1, shifted along x by `shift`, with the sign of
    /// `sign`.
    fn sphere(shift: f64, sign: f64) -> (Vec<f32>, Value) {
        let n = 12;
        let at = |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
        let cells = (0..n * n * n).map(|c| DVec3::new(at(c / n / n) - shift, at(c / n % n), at(c % n)));
        let values: Vec<f32> = cells.map(|p| (sign * (p.length() - 0.613)) as f32).collect();
        let mut mesh = marching_cubes(&values, [n; 3], 0.0);
        mesh.positions.iter_mut().for_each(|p| *p = *p * (2.0 / (n - 1) as f32) - 1.0);
        let about = serde_json::json!({
            "dims": [n, n, n], "lo": [-1, -1, -1], "hi": [1, 1, 1], "level": 0.0, "sdf": "a formula of its own",
            "edge_crossings": mesh.positions.len(),
            "skimage_lewiner": {
                "faces": mesh.faces.len(), "euler": mesh.euler_number(), "watertight": mesh.is_watertight(),
                "components": 1, "area": mesh.area(), "volume_abs": mesh.volume().abs(),
            },
        });
        (values, about)
    }

    fn run(values: Option<&[f32]>, about: &Value) -> Result<bool> {
        let mut checks = Checks::default();
        let stored = values.map(|values| Tensor::from_slice(values).view([12, 12, 12]));
        grid("a grid", about, stored.as_ref(), &mut checks)?;
        Ok(checks.hold())
    }

    #[test]
    fn a_stored_grid_needs_no_formula_and_a_surface_no_inside() {
        // whole, whole and with its inside above the level, cut off by the grid
        for (shift, sign) in [(0.0, 1.0), (0.0, -1.0), (0.9, 1.0)] {
            let (values, mut about) = sphere(shift, sign);
            assert!(run(Some(&values), &about).unwrap(), "{shift} {sign}");
            assert!(run(None, &about).is_err());
            let turned: Vec<f32> = values.iter().map(|v| -v).collect();
            about["skimage_lewiner"]["area"] = 1.0.into();
            assert!(!run(Some(&values), &about).unwrap() && !run(Some(&turned), &about).unwrap());
        }
    }

    #[test]
    fn a_formula_needs_no_stored_grid() {
        let (values, mut about) = sphere(0.0, 1.0);
        about["skimage_lewiner"]["max_vertex_dist_to_surface"] = 0.02.into();
        for formula in ["|p|-0.613, a sphere", "hypot(x,y,z)-0.613", "min(sqrt(x^2+y^2+z^2)-0.613, 9)"] {
            about["sdf"] = formula.into();
            assert!(run(None, &about).unwrap() && run(Some(&values), &about).unwrap(), "{formula}");
        }
        // another field than the one that is compared with, or stored
        about["sdf"] = "|p|-0.65".into();
        assert!(!run(None, &about).unwrap() && !run(Some(&values), &about).unwrap());
        about["sdf"] = "max(|p|-0.613, |p|)".into();
        assert!(!run(Some(&values), &about).unwrap());
        about["index_order"] = "grid[k,j,i]".into();
        assert!(run(Some(&values), &about).unwrap_err().to_string().contains("index_order"));
    }

    #[test]
    fn vertices_within_cells_are_counted_with_the_reference() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..12 * 12 * 12).map(|_| random()).collect();
        let (_, mut about) = sphere(0.0, 1.0);
        let mesh = marching_cubes(&values, [12; 3], 0.0);
        let is_inside = |c: usize| values[c] < 0.0;
        let crossed = |step: usize| {
            (0..values.len()).filter(|c| c / step % 12 < 11 && is_inside(*c) != is_inside(c + step)).count()
        };
        let on_edges: usize = [1, 12, 144].into_iter().map(crossed).sum();
        assert!(on_edges < mesh.positions.len());
        about["edge_crossings"] = on_edges.into();
        about["skimage_lewiner"] = serde_json::json!({
            "vertices": mesh.positions.len(), "faces": mesh.faces.len(), "euler": mesh.euler_number(),
            "watertight": false, "components": mesh.face_components().into_iter().max().unwrap() + 1,
            "area": mesh.area() * (2.0 / 11.0f64).powi(2),
        });
        assert!(run(Some(&values), &about).unwrap());
        about["skimage_lewiner"]["vertices"] = on_edges.into();
        assert!(!run(Some(&values), &about).unwrap());
    }

    #[test]
    fn an_empty_surface_is_compared_by_its_counts() {
        let (values, mut about) = sphere(0.0, 1.0);
        about["edge_crossings"] = 0.into();
        about["level"] = (-9.0).into();
        for nothing in [Value::Null, serde_json::json!({ "vertices": 0, "faces": 0, "area": 0.0, "volume_abs": 0.0 })] {
            about["skimage_lewiner"] = nothing;
            assert!(run(Some(&values), &about).unwrap());
        }
        about["level"] = 0.0.into();
        assert!(!run(Some(&values), &about).unwrap());
    }
}
