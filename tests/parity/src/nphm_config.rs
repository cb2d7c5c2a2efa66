//! What configurations of the head model's cases say: dimensions of networks, blending, root finding. A field is read,
//! or has to say what is implemented, or is told to be unknown. Knows no tensors.

use anyhow::{Context, Result, bail, ensure};
use models::nphm::config::{Activation, ColorConfig};
use models::nphm::roots::Options;
use models::nphm::{Blend, DeformationConfig, Direction, IdentityConfig, Layout};
use serde_json::Value;

use crate::check::{Checks, only};

/// Newton steps after Broyden's, where what is compared presumes a root that is fully converged. A step that does not
/// come closer is not taken, so those that are not needed cost time alone.
const NEWTON_STEPS: usize = 12;

/// Fields of any network, which are read or have no bearing on the result.
const ANY: [&str; 13] = [
    "generation",
    "n_anchors",
    "n_pairs",
    "n_mid",
    "d_glob",
    "d_loc",
    "softplus_beta",
    "batch",
    "points",
    "weight_seed",
    "weight_rule",
    "weight_first8",
    "manifest",
];
const FORWARD: &[&str] = &[
    "hidden",
    "n_layers",
    "skip_layer",
    "skip_narrow",
    "pos_mlp_dim",
    "n_hyper",
    "blend",
    "member_input",
    "denominator",
    "dist_eps",
    "background_exponent",
    "sum_eps",
];
const BACKWARD: &[&str] = &[
    "n_hyper",
    "hidden_geo",
    "layers_geo",
    "hidden_app",
    "layers_app",
    "pos_mlp_dim",
    "communication_dim",
    "n_neighbors",
    "blend",
    "member_input",
    "color_input",
    "skip",
    "blend_std",
    "sigma",
    "global_distance",
    "sum_eps",
];
const DEFORMATION: &[&str] = &[
    "mode",
    "d_ex",
    "d_compress",
    "hidden",
    "n_layers",
    "skip_layer",
    "skip_narrow",
    "n_hyper",
    "input",
    "compressor_input",
    // of training
    "train_noise_std_on_compressed",
    "eval_noise",
    "broyden",
    "max_steps",
    "converge",
    "diverge",
    "denom_eps",
    "init",
];
const BOTH: &[&str] = &["identity", "deformation", "broyden"];

/// Tells of fields that nobody knows.
pub fn tell_unknown(config: &Value, checks: &mut Checks) {
    let networks: Vec<&Value> = BOTH[..2].iter().filter_map(|network| config.get(network)).collect();
    networks.iter().for_each(|network| tell_unknown(network, checks));
    let own = match config["generation"].as_str() {
        _ if !networks.is_empty() => BOTH,
        _ if config.get("d_ex").is_some() => DEFORMATION,
        Some("nphm_forward") => FORWARD,
        _ => BACKWARD,
    };
    // how far the field bends was measured when the case was made
    let is_known = |field: &str| ANY.contains(&field) || own.contains(&field) || field.starts_with("max_spectral_norm");
    for part in [config, &config["blend"], &config["broyden"]] {
        checks.unknown_fields(part, is_known);
    }
}

fn number(config: &Value, key: &str) -> Result<f64> {
    config[key].as_f64().with_context(|| format!("config.{key} is missing"))
}

fn integer(config: &Value, key: &str) -> Result<i64> {
    config[key].as_i64().with_context(|| format!("config.{key} is missing"))
}

/// Fails if a configuration says that a network's input is made of other parts than these, or in another order. The
/// sizes that a description may give, `d_k(3)` or `comm16`, follow from other fields.
fn input_is(config: &Value, key: &str, implemented: &[&[&str]]) -> Result<()> {
    let Some(found) = config.get(key) else { return Ok(()) };
    let without_size = |part: &str| {
        let name = part.split('(').next().unwrap_or(part).trim();
        name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
    };
    let inside = found.as_str().and_then(|text| text.trim().strip_prefix('[')?.strip_suffix(']'));
    let parts: Vec<String> = inside.into_iter().flat_map(|text| text.split('|')).map(without_size).collect();
    let known = implemented.iter().map(|parts| format!("[{}]", parts.join("|"))).collect::<Vec<_>>().join(" or ");
    ensure!(implemented.iter().any(|known| parts == *known), "{key}: {found} is not implemented (only {known})");
    Ok(())
}

/// How closed-form weights are made.
const WEIGHT_RULE: &str = "weights are not stored: tensor number t (0-based position in config.manifest), flat index i (row-major): \
    s = splitmix64(((seed<<48)+(t<<40)+i) mod 2^64), u = (s>>40)/2^24, value = float32((2u-1)*bound) with float64 arithmetic; \
    splitmix64(x): z=x+0x9E3779B97F4A7C15; z=(z^(z>>30))*0xBF58476D1CE4E5B9; z=(z^(z>>27))*0x94D049BB133111EB; z^(z>>31). \
    manifest rows: [key, shape, bound].";

/// Fails if weights are made by another rule than the one that is implemented. In other words it may be the same one:
/// then the first values, which are compared in any case, have to be there.
pub fn weight_rule(config: &Value) -> Result<()> {
    let has_values = config["weight_first8"].as_object().is_some_and(|tensors| !tensors.is_empty());
    match config.get("weight_rule") {
        Some(rule) if *rule != WEIGHT_RULE && !has_values => {
            bail!(
                "weight_rule: {rule} is not the rule that is implemented, and no weight_first8 shows that it means the same"
            )
        }
        _ => Ok(()),
    }
}

/// The published method's numbers; what else a case says of it has to be as it is published.
pub fn broyden_options(steps: &Value) -> Result<Options> {
    only(steps, "denom_eps", &[1e-6.into()])?;
    only(steps, "init", &["x_obs, exact inverse Jacobian".into()])?;
    Ok(Options {
        broyden_steps: steps["max_steps"].as_u64().context("broyden.max_steps")? as usize,
        newton_steps: 0,
        converge: number(steps, "converge")?,
        diverge: number(steps, "diverge")?,
    })
}

/// The same, and on to where there is no better root.
pub fn exact(published: Options) -> Options {
    Options { newton_steps: NEWTON_STEPS, ..published }
}

/// The networks' activation; the published one where nothing is said.
fn softplus(config: &Value) -> Result<Activation> {
    match config.get("softplus_beta") {
        None => Ok(Activation::Softplus(100.0)),
        Some(_) => Ok(Activation::Softplus(number(config, "softplus_beta")?)),
    }
}

/// The identity network that a case describes.
///
/// # Errors
/// If a field is missing, or asks for what is not implemented.
pub fn identity_config(c: &Value) -> Result<IdentityConfig> {
    let mono = match c["generation"].as_str() {
        Some("nphm_forward") => false,
        Some("mononphm_backward") => true,
        other => bail!("unknown generation {other:?}"),
    };
    let b = &c["blend"];
    // NPHM narrows before its skip, MonoNPHM has none.
    only(c, if mono { "skip" } else { "skip_narrow" }, &[(!mono).into()])?;
    input_is(c, "member_input", if mono { &[&["z_glob", "z_k", "d_k"]] } else { &[&["d_k", "z_glob", "z_k"]] })?;
    input_is(c, "color_input", &[&["z_app_glob", "z_app_k", "comm"]])?;
    let (pairs, middle) = (integer(c, "n_pairs")?, integer(c, "n_mid")?);
    only(c, "n_anchors", &[(2 * pairs + middle).into()])?;
    if mono {
        let distance = &b["global_distance"];
        let width = format!("max over the first min(8, K+1) entries of [K sorted distances | {distance}] / blend_std");
        only(b, "sigma", &[width.into()])?;
    } else {
        only(c, "n_hyper", &[0.into()])?;
    }
    Ok(IdentityConfig {
        pairs,
        middle,
        d_glob: integer(c, "d_glob")?,
        d_loc: integer(c, "d_loc")?,
        n_hyper: if mono { integer(c, "n_hyper")? } else { 0 },
        hidden: integer(c, if mono { "hidden_geo" } else { "hidden" })?,
        layers: integer(c, if mono { "layers_geo" } else { "n_layers" })?,
        skip_layer: if mono { None } else { Some(integer(c, "skip_layer")?) },
        pos_hidden: integer(c, "pos_mlp_dim")?,
        activation: softplus(c)?,
        layout: if mono { Layout::MonoNphm } else { Layout::Nphm },
        blend: if mono {
            Blend::Adaptive {
                neighbors: integer(c, "n_neighbors")?,
                blend_std: number(b, "blend_std")?,
                global_distance: number(b, "global_distance")?,
                sum_eps: number(b, "sum_eps")?,
            }
        } else {
            Blend::Gaussian {
                denominator: number(b, "denominator")?,
                distance_eps: number(b, "dist_eps")?,
                background: number(b, "background_exponent")?,
                sum_eps: number(b, "sum_eps")?,
            }
        },
        color: if mono {
            Some(ColorConfig {
                hidden: integer(c, "hidden_app")?,
                layers: integer(c, "layers_app")?,
                bottleneck: integer(c, "communication_dim")?,
            })
        } else {
            None
        },
    })
}

/// The expression network that a case describes.
///
/// # Errors
/// If a field is missing, or asks for what is not implemented.
pub fn deformation_config(c: &Value) -> Result<DeformationConfig> {
    only(c, "mode", &["compress".into()])?;
    only(c, "eval_noise", &[0.into(), 0.0.into()])?;
    input_is(c, "input", &[&["x", "compressed", "z_ex"]])?;
    input_is(c, "compressor_input", &[&["z_id", "anchors flattened"], &["z_geo", "anchors flattened"]])?;
    let (anchors, d_loc, n_hyper) = (integer(c, "n_anchors")?, integer(c, "d_loc")?, integer(c, "n_hyper")?);
    let direction = match c.get("generation").map(Value::as_str) {
        Some(Some("nphm_forward")) => Direction::Forward,
        Some(Some("mononphm_backward")) => Direction::Backward,
        None if n_hyper > 0 => Direction::Backward,
        None => Direction::Forward,
        Some(_) => bail!("generation: {} is not implemented (only nphm_forward or mononphm_backward)", c["generation"]),
    };
    Ok(DeformationConfig {
        d_id: integer(c, "d_glob")? + (anchors + 1) * d_loc,
        anchors,
        d_ex: integer(c, "d_ex")?,
        d_compress: integer(c, "d_compress")?,
        hidden: integer(c, "hidden")?,
        layers: integer(c, "n_layers")?,
        skip_layer: integer(c, "skip_layer")?,
        narrow: c["skip_narrow"].as_bool().context("config.skip_narrow")?,
        n_hyper,
        direction,
        activation: softplus(c)?,
        last_std: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(case: &str) -> Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/nphm").join(case).join("meta.json");
        crate::check::json(&path).unwrap()["config"].clone()
    }

    #[test]
    fn what_a_case_says_is_honoured_or_refused() {
        for (case, wrong) in [
            ("forward_id", json!({ "skip_narrow": false })),
            ("forward_id", json!({ "n_anchors": 10 })),
            ("backward_id", json!({ "skip": true })),
            ("backward_id", json!({ "blend": { "sigma": "the distance of the nearest" } })),
            ("forward_id", json!({ "n_hyper": 2 })),
            ("forward_id", json!({ "softplus_beta": "large" })),
        ] {
            let mut config = config(case);
            identity_config(&config).unwrap();
            for (key, value) in wrong.as_object().unwrap() {
                match value.as_object().and_then(|inner| inner.iter().next()) {
                    Some((inner, value)) => config[key][inner] = value.clone(),
                    None => config[key] = value.clone(),
                }
            }
            assert!(identity_config(&config).is_err(), "{case} {wrong}");
        }
        let mut config = config("forward_def");
        deformation_config(&config).unwrap();
        assert_eq!(broyden_options(&config["broyden"]).unwrap().broyden_steps, 15);
        for (key, wrong) in [("mode", "interpolate"), ("generation", "flame")] {
            let was = std::mem::replace(&mut config[key], wrong.into());
            assert!(deformation_config(&config).unwrap_err().to_string().starts_with(key), "{key}");
            config[key] = was;
        }
        config["broyden"]["init"] = "zero".into();
        assert!(broyden_options(&config["broyden"]).is_err());
    }

    #[test]
    fn inputs_are_put_together_as_the_case_says() {
        type Read = fn(&Value) -> Result<()>;
        let identity: Read = |c| identity_config(c).map(drop);
        let deformation: Read = |c| deformation_config(c).map(drop);
        for (case, read, key, right, wrong) in [
            ("forward_id", identity, "member_input", "[d_k(3)|z_glob|z_k]", "[z_glob|z_k|d_k(3)]"),
            ("backward_id", identity, "member_input", "[z_glob | z_k | d_k(3+7)]", "[d_k(3+2)|z_glob|z_k]"),
            ("backward_id", identity, "color_input", "[z_app_glob|z_app_k|comm]", "[comm16|z_app_glob|z_app_k]"),
            ("forward_def", deformation, "input", "[x|compressed|z_ex]", "[z_ex|compressed|x(3)]"),
            ("backward_def", deformation, "compressor_input", "[z_id|anchors flattened]", "[anchors flattened|z_geo]"),
            ("backward_def", deformation, "compressor_input", "[z_geo|anchors flattened]", "z_geo"),
        ] {
            let mut config = config(case);
            read(&config).unwrap();
            config[key] = right.into();
            read(&config).unwrap();
            config[key] = wrong.into();
            let error = read(&config).unwrap_err().to_string();
            assert!(error.starts_with(key) && error.contains("only ["), "{error}");
        }
    }

    #[test]
    fn weights_are_made_by_the_rule_that_the_case_names() {
        let mut config = config("real_forward_id");
        assert_eq!(config["weight_rule"], WEIGHT_RULE);
        config["weight_rule"] = "the same in other words".into();
        weight_rule(&config).unwrap();
        config["weight_first8"] = json!({});
        assert!(weight_rule(&config).unwrap_err().to_string().starts_with("weight_rule"));
        config["weight_rule"] = WEIGHT_RULE.into();
        weight_rule(&config).unwrap();
    }

    #[test]
    fn fields_that_nobody_knows_are_told() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/nphm");
        let cases = crate::check::json(&dir.join("cases.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let mut checks = Checks::default();
            tell_unknown(&config(case["case"].as_str().unwrap()), &mut checks);
            assert!(checks.remarks().is_empty(), "{case}: {:?}", checks.remarks());
        }
        for (case, field) in [("forward_id", "n_neighbors"), ("backward_id", "dist_eps"), ("forward_def", "dropout")] {
            let mut config = config(case);
            config[field] = 1.into();
            let mut checks = Checks::default();
            tell_unknown(&config, &mut checks);
            assert!(checks.remarks().iter().any(|remark| remark.contains(field)), "{case} {field}");
        }
    }

    #[test]
    fn roots_that_newton_nears_slowly_are_reached() {
        use tch::{Device, Kind, Tensor};
        // the root of a cube is threefold: each step leaves two thirds of the way
        let cube = |x: &Tensor| x * x * x;
        let (zero, start) = (
            Tensor::zeros([1, 1, 3], (Kind::Double, Device::Cpu)),
            Tensor::full([1, 1, 3], 0.5, (Kind::Double, Device::Cpu)),
        );
        let newton = exact(Options { broyden_steps: 0, ..Options::default() });
        let root = models::nphm::roots::solve(&cube, &zero, &start, &newton);
        assert_eq!(root.converged.all().int64_value(&[]), 1);
    }
}
