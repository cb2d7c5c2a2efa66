//! The conventions that configurations of the avatar's cases name. Of each there is one that is implemented: a case
//! that names another is compared with it all the same, since words may differ where numbers agree, and told of. Knows
//! no tensors' values.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::check::{Checks, only};

/// Fields whose values are read, or have no bearing on the result, by kind.
const QUANTIZER: &[&str] = &["min", "max", "bits", "reserved_mask_bin", "above_max", "channels", "used_by_renderer"];
const TEXTURES: &[&str] = &["C", "CA", "texture_hw", "channels"];
const SCHEDULE: &[&str] = &[
    "T",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "prediction",
    "variance",
    "clip",
    "clip_range",
    "steps",
    "network",
];
const POSE: &[&str] = &["nphm_over_flame"];
const CAMERA: &[&str] = &["near", "far", "render_size"];

/// Tells of a configuration that asks for another convention than the one that is implemented, and of fields that
/// nobody knows.
///
/// # Errors
/// If the kind of case is unknown.
pub fn check(kind: &str, config: &Value, checks: &mut Checks) -> Result<()> {
    let (read, fixed): (&[&str], Vec<(&str, Vec<Value>)>) = match kind {
        "quantizer" => (QUANTIZER, quantizer()),
        "quantizer_normals" => {
            let spherical = "r=|n|, theta=atan2(hypot(x,y),z), phi=atan2(y,x)";
            let own: [(&str, Vec<Value>); 2] = [("channels", vec![3.into()]), ("spherical", vec![spherical.into()])];
            (QUANTIZER, quantizer().into_iter().chain(own).collect())
        }
        "condition_channels" => {
            let order = ["depth 1", "uv 3", "normals 3", "uv_ambient 2", "triplane 3*C", "ambient map CA"];
            (TEXTURES, vec![("order", vec![json!(order)])])
        }
        "triplane_lookup" => (TEXTURES, textures()),
        "noise_schedule" | "ddpm_trajectory" => (SCHEDULE, Vec::new()),
        "flame_to_world" => (POSE, pose(&config["nphm_over_flame"])),
        "camera_projection" => {
            let fixed = vec![
                ("stored_pose", vec!["world-to-camera OpenCV, Rodrigues".into()]),
                ("gl", vec!["cam-to-world columns 1,2 negated".into()]),
                ("pixel_centre", vec![0.5.into()]),
            ];
            (CAMERA, fixed)
        }
        other => bail!("the kind {other} is unknown"),
    };
    for (field, implemented) in &fixed {
        if let Err(other) = only(config, field, implemented) {
            checks.remark(format!("{other}: the comparison is made with that"));
        }
    }
    checks.unknown_fields(config, |field| read.contains(&field) || fixed.iter().any(|(known, _)| *known == field));
    Ok(())
}

fn quantizer() -> Vec<(&'static str, Vec<Value>)> {
    vec![("mask", vec!["any channel != 0".into()]), ("stored_channels", vec![3.into()])]
}

fn textures() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("addressing", vec!["wrap".into()]),
        ("filter", vec!["bilinear".into()]),
        ("texel_centre", vec!["(i+0.5)/R".into()]),
        ("combine", vec!["concatenate".into()]),
        ("plane_axes", vec![json!([[0, 1], [0, 2], [1, 2]])]),
    ]
}

/// The formula names the scale, which may be the published one for any other that the field gives.
fn pose(scale: &Value) -> Vec<(&'static str, Vec<Value>)> {
    let formula = |scale: &str| Value::from(format!("x_world = R diag(scale[0]) (x_nphm/{scale}) + t"));
    vec![
        ("euler", vec!["intrinsic XYZ radians: R = Rx(a) Ry(b) Rz(c)".into()]),
        ("formula", vec![formula(&scale.to_string()), formula("4")]),
    ]
}

/// Fails if a size that a configuration states is not that of the tensors.
pub fn agrees(config: &Value, key: &str, found: &Value) -> Result<()> {
    match config.get(key) {
        Some(stated) if stated != found => bail!("{key}: the configuration says {stated}, the tensors have {found}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs() -> Vec<(String, Value)> {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/avatar");
        let cases = crate::check::json(&dir.join("cases.json")).unwrap();
        let of = |case: &Value| {
            let meta = crate::check::json(&dir.join(case["case"].as_str().unwrap()).join("meta.json")).unwrap();
            (case["kind"].as_str().unwrap().to_owned(), meta["config"].clone())
        };
        cases.as_array().unwrap().iter().map(of).collect()
    }

    #[test]
    fn the_committed_cases_say_nothing_that_is_not_understood() {
        for (kind, config) in configs() {
            let mut checks = Checks::default();
            check(&kind, &config, &mut checks).unwrap();
            assert!(checks.remarks().is_empty(), "{kind}: {:?}", checks.remarks());
        }
        let mut checks = Checks::default();
        check("camera_projection", &json!({ "lens": "fisheye", "near": 0.1 }), &mut checks).unwrap();
        assert!(checks.remarks().len() == 1 && checks.remarks()[0].contains("lens"));
        assert!(check("odd", &json!({}), &mut checks).is_err());
    }

    #[test]
    fn other_conventions_are_told_by_name() {
        for (kind, field, value) in [
            ("triplane_lookup", "addressing", json!("clamp")),
            ("triplane_lookup", "filter", json!("nearest")),
            ("triplane_lookup", "combine", json!("sum")),
            ("triplane_lookup", "texel_centre", json!("i/(R-1)")),
            ("triplane_lookup", "plane_axes", json!([[0, 1], [1, 2], [0, 2]])),
            ("condition_channels", "order", json!(["uv 3", "depth 1"])),
            ("camera_projection", "pixel_centre", json!(0.0)),
            ("camera_projection", "stored_pose", json!("camera-to-world OpenGL, matrix")),
            ("camera_projection", "gl", json!("none")),
            ("quantizer", "mask", json!("all channels != 0")),
            ("quantizer", "stored_channels", json!(4)),
            ("quantizer_normals", "mask", json!("alpha")),
            ("quantizer_normals", "channels", json!(2)),
            ("quantizer_normals", "spherical", json!("r, elevation, azimuth")),
            ("flame_to_world", "euler", json!("extrinsic XYZ degrees")),
            ("flame_to_world", "formula", json!("x_world = diag(scale[0]) R (x_nphm/4) + t")),
        ] {
            let mut matching = configs().into_iter().filter(|(of, _)| of == kind);
            let mut config = matching.next().unwrap().1;
            config[field] = value;
            let mut checks = Checks::default();
            check(kind, &config, &mut checks).unwrap();
            let told = checks.remarks();
            assert!(told.len() == 1 && told[0].starts_with(&format!("{field}: ")), "{told:?}");
        }
        let scaled = json!({ "nphm_over_flame": 5, "formula": "x_world = R diag(scale[0]) (x_nphm/5) + t" });
        let mut checks = Checks::default();
        check("flame_to_world", &scaled, &mut checks).unwrap();
        assert!(checks.remarks().is_empty(), "{:?}", checks.remarks());
    }

    #[test]
    fn stated_sizes_are_those_of_the_tensors() {
        let config = json!({ "C": 6, "texture_hw": [16, 8] });
        agrees(&config, "C", &6.into()).unwrap();
        agrees(&config, "CA", &4.into()).unwrap();
        agrees(&config, "texture_hw", &json!([16, 8])).unwrap();
        assert!(agrees(&config, "texture_hw", &json!([8, 16])).is_err());
    }
}
