//! `effigy-stages`: the provider of the avatar stages. One file a stage; each registers itself, so a new stage is a new
//! file here and a stanza in a recipe, and no list is edited.
//!
//! `common` holds no stages but what several need: images, videos and arrays on disk, head models, an avatar's parts.
//! `import` is a command beside the stages.
//!
//! Knows no recipes, keys or caches: rows come in, rows go out (see the `protocol` crate).

automod::dir!("src");
mod common;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "import") {
        return list_capture(&arguments[1..]);
    }
    let software = [
        ("libtorch", tch_version()),
        ("opencv", opencv::core::get_version_string().unwrap_or_else(|error| error.to_string())),
    ];
    let code = protocol::provider_main("effigy-stages", env!("CARGO_PKG_VERSION"), &software, prepare);
    if code == ExitCode::SUCCESS {
        let _ = std::io::stdout().flush();
        models::runtime::leave();
    }
    code
}

/// The command `import`; whoever reads its answer may have seen enough and closed the pipe.
fn list_capture(arguments: &[String]) -> ExitCode {
    match import::answer(arguments) {
        Ok(text) => match writeln!(std::io::stdout(), "{text}") {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            eprintln!("error: {}", format!("{error:#}").replace("\nhint: ", "\n  hint: "));
            ExitCode::from(2)
        }
    }
}

/// The libtorch this binary was built against: torch-sys of this version takes no other.
fn tch_version() -> String {
    "2.13".into()
}

/// Holds every thread pool of the process to the threads of the task: two pools on the same cores stall each other.
fn prepare(threads: usize) {
    // libtorch cuts sums among its threads, and another number of them gives other bits, which no key tells: samples
    // and parts of batches go side by side instead
    models::runtime::prepare(1);
    // the pool of a process is made once; a later task of another width uses what is there
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    // OpenCV's own pool would fight rayon's
    let _ = opencv::core::set_num_threads(1);
}

#[cfg(test)]
mod tests {
    use protocol::Registration;
    use serde_json::Value;
    use std::collections::BTreeMap;

    /// The schema of the parameters of each stage.
    fn schemas() -> BTreeMap<String, Value> {
        let stages = protocol::inventory::iter::<Registration>();
        stages.map(|stage| ((stage.def)().kind, (stage.schema)())).collect()
    }

    /// Whether a schema has bounds that leave a number out.
    fn refuses(schema: &Value, number: f64) -> bool {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        limit("minimum").is_some_and(|least| number < least)
            || limit("maximum").is_some_and(|most| number > most)
            || limit("exclusiveMinimum").is_some_and(|below| number <= below)
            || limit("exclusiveMaximum").is_some_and(|above| number >= above)
    }

    #[test]
    fn every_parameter_is_required_or_its_default_is_told() {
        let schemas = schemas();
        assert!(schemas.len() > 50, "{} stages", schemas.len());
        for (kind, schema) in &schemas {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let default = property.get("default");
                assert_ne!(
                    required.contains(&name.as_str()),
                    default.is_some(),
                    "`{name}` of {kind}: {property}; does the type of a default lack `Serialize`?"
                );
                if let Some(number) = default.and_then(Value::as_f64) {
                    assert!(!refuses(property, number), "`{name}` of {kind}: {property} refuses its default");
                    // one of single precision is not what somebody types who sets it: another key for the same
                    let single = number as f32;
                    let typed = single.to_string().parse::<f64>().expect("a number");
                    assert!(
                        f64::from(single) != number || typed == number,
                        "`{name}` of {kind}: {number} is {typed} as typed"
                    );
                }
            }
        }
        assert_eq!(schemas["scan_meshes"]["properties"]["up"]["default"], "+y");
        assert_eq!(schemas["render_avatar"]["properties"]["sampler"]["default"], "ddpm");
        assert_eq!(schemas["load_head_model"]["properties"]["anchors"]["default"], Value::Null);
    }

    #[test]
    fn what_a_stage_cannot_take_its_schema_leaves_out() {
        let schemas = schemas();
        let wrong = [
            ("extract_frames", "every", 0.0),
            ("extract_frames", "quality", 900.0),
            ("scan_meshes", "points", 0.0),
            ("source_folder", "scale", -1.0),
            ("source_folder", "fov_degrees", 180.0),
            ("source_nersemble_clouds", "every", 0.0),
            ("capture_synthetic", "frames", 0.0),
            ("capture_synthetic", "width", 4000.0),
            ("encode_latents", "size", 0.0),
            ("error_sheet", "full", 0.0),
            ("evaluate_sequences", "chunk", 0.0),
            ("export_rendering_data", "downscale_factor", 0.0),
            ("expression_actions", "strength", 0.0),
            ("free_space", "reach", 0.0),
            ("free_space", "margin", -0.1),
            ("make_video", "fps", 0.001),
            ("plan_trajectory", "distance", 0.0),
            ("plan_trajectory", "frequency", 0.0),
            ("probe_expression", "block", 0.0),
            ("probe_expression", "folds", 1.0),
            ("render_avatar", "steps", 0.0),
            ("sample_prior", "count", 0.0),
            ("tracking_sheet", "picture", 63.0),
            ("track_head", "smooth_motion", -1.0),
            ("track_head", "hair_weight", 1.1),
            ("fit_identity", "hair_weight", -0.1),
            ("fit_pca_head", "hair_weight", 1.1),
            ("train_head_model", "expression_dims", 0.0),
            ("train_avatar", "batch", 0.0),
            ("train_avatar", "accumulate", 0.0),
            ("train_avatar", "ema", 1.0),
            ("train_avatar", "mouth_weight", -1.0),
            ("train_avatar", "min_snr", 0.0),
            ("train_avatar", "expression_tokens", 0.0),
            ("train_avatar", "validate_every", 0.0),
            ("triangulate_landmarks", "threshold", 0.0),
            ("triangulate_landmarks", "min_views", 1.0),
            ("turntable", "size", 62.0),
            ("turntable", "hold", 0.0),
        ];
        for (kind, name, number) in wrong {
            let property = &schemas[kind]["properties"][name];
            assert!(refuses(property, number), "`{name}` of {kind} may be {number}: {property}");
        }
        for (kind, name) in [("scan_meshes", "anchors"), ("image_grid", "lines"), ("capture_synthetic", "cameras")] {
            assert_eq!(schemas[kind]["properties"][name]["minItems"], 1, "`{name}` of {kind}");
        }
    }
}
