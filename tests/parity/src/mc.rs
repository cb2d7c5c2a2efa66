//! Marching cubes on analytic distance fields: counts and topology exactly, area, volume and vertices closely.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use geometry::marching_cubes::marching_cubes;
use glam::DVec3;
use serde_json::Value;

use crate::check::{Case, Checks, Report, json, number};

/// Runs every grid of the folder.
pub fn run(dir: &Path, report: &mut Report) {
    match json(&dir.join("expected.json")) {
        Ok(Value::Object(cases)) => {
            let stored = Case::read(&dir.join("grid0.safetensors")).ok();
            for (name, about) in &cases {
                report.case(&format!("mc/{name}"), |checks| grid(name, about, stored.as_ref(), checks));
            }
        }
        Ok(_) => report.fail("mc", "expected.json is not a table of grids"),
        Err(error) => report.fail("mc", &format!("{error:#}")),
    }
}

/// The distance fields that the set writes as formulas.
enum Field {
    Sphere(DVec3, f64),
    Torus(f64, f64),
}

impl Field {
    /// `|p|-R`, `|p-(x,y,z)|-R` or `hypot(hypot(x,y)-R,z)-r`; what follows a comma and a blank is a remark.
    fn parse(text: &str) -> Result<Self> {
        let formula = text.split(", ").next().unwrap_or_default();
        let numbers = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>();
        if let Some(rest) = formula.strip_prefix("hypot(hypot(x,y)-") {
            let (ring, tube) = rest.split_once(",z)-").context("a torus needs two radii")?;
            return Ok(Self::Torus(ring.parse()?, tube.parse()?));
        }
        if let Some(radius) = formula.strip_prefix("|p|-") {
            return Ok(Self::Sphere(DVec3::ZERO, radius.parse()?));
        }
        if let Some(rest) = formula.strip_prefix("|p-(") {
            let (center, radius) = rest.split_once(")|-").context("a sphere needs a centre and a radius")?;
            let center = numbers(center)?;
            ensure!(center.len() == 3, "a centre has three coordinates");
            return Ok(Self::Sphere(DVec3::from_slice(&center), radius.parse()?));
        }
        bail!("the formula {formula} is unknown")
    }

    fn at(&self, p: DVec3) -> f64 {
        match *self {
            Self::Sphere(center, radius) => (p - center).length() - radius,
            Self::Torus(ring, tube) => (p.x.hypot(p.y) - ring).hypot(p.z) - tube,
        }
    }
}

fn grid(name: &str, about: &Value, stored: Option<&Case>, checks: &mut Checks) -> Result<()> {
    let list = |key: &str| -> Result<[f64; 3]> {
        serde_json::from_value(about[key].clone()).with_context(|| format!("{key} of {name}"))
    };
    let (dims, lo, hi) = (list("dims")?, DVec3::from(list("lo")?), DVec3::from(list("hi")?));
    let field = Field::parse(about["sdf"].as_str().context("there is no formula")?)?;
    let n = dims.map(|d| d as usize);
    let position = |g: DVec3| lo + (hi - lo) * g / (DVec3::from(dims) - 1.0);
    let mut values = Vec::with_capacity(n.iter().product());
    for i in 0..n[0] {
        for j in 0..n[1] {
            for k in 0..n[2] {
                values.push(field.at(position(DVec3::new(i as f64, j as f64, k as f64))) as f32);
            }
        }
    }
    if let Some(grid) = stored.and_then(|case| case.get(name).ok()) {
        let grid: Vec<f32> = Vec::try_from(grid.flatten(0, -1))?;
        // The last bit depends on the square root's arguments' rounding order; anything more is another field or order.
        let worst = grid.iter().zip(&values).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        checks.error("the sampled field", worst, 1e-6);
        ensure!(grid.len() == values.len(), "the stored grid has another size");
        values = grid;
    }
    let level = number(about, "level")?;
    let mut mesh = marching_cubes(&values, n, level as f32);
    let want = &about["skimage_lewiner"];
    checks.error("vertices", (mesh.positions.len() as f64 - number(about, "edge_crossings")?).abs(), 0.0);
    checks.error("faces", (mesh.faces.len() as f64 - number(want, "faces")?).abs(), 0.0);
    checks.error("euler", (mesh.euler_number() as f64 - number(want, "euler")?).abs(), 0.0);
    checks.exact("watertight", Some(mesh.is_watertight()) == want["watertight"].as_bool());
    let components = mesh.face_components().into_iter().max().map_or(0, |last| last + 1);
    checks.error("components", (f64::from(components) - number(want, "components")?).abs(), 0.0);

    let places: Vec<DVec3> = mesh.positions.iter().map(|p| position(p.as_dvec3())).collect();
    let off = places.iter().map(|p| (field.at(*p) - level).abs()).fold(0.0, f64::max);
    checks.error("distance to the surface", off, 1e-6 + 1.01 * number(want, "max_vertex_dist_to_surface")?);
    mesh.positions = places.iter().map(|p| p.as_vec3()).collect();
    let relative = |got: f64, key: &str| -> Result<f64> { Ok((got - number(want, key)?).abs() / number(want, key)?) };
    checks.error("area, relative", relative(mesh.area(), "area")?, 1e-4);
    checks.error("volume, relative", relative(mesh.volume().abs(), "volume_abs")?, 1e-4);
    checks.exact("faces look outwards", mesh.volume() > 0.0);
    Ok(())
}
