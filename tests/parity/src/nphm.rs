//! The head model: published NPHM and MonoNPHM networks on random or closed-form weights, in single and in double
//! precision. Tolerances come with each case.

use anyhow::{Context, Result, bail, ensure};
use models::nphm::roots::Options;
use models::nphm::{Deformation, Far, Identity, gradient};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};

use crate::check::{Checks, closed_form};
use crate::folder::Folder;
use crate::nphm_config::{broyden_options, deformation_config, exact, identity_config, tell_unknown, weight_rule};

type Named = BTreeMap<String, Tensor>;

/// Runs one case by its kind, in single and in double precision: the same code, two tolerances.
pub fn run(kind: &str, folder: &Folder, checks: &mut Checks) -> Result<()> {
    tell_unknown(&folder.meta["config"], checks);
    for (precision, key) in [(Kind::Float, "f32_abs"), (Kind::Double, "f64_abs")] {
        let computed = Case { folder, kind: precision }.compute(kind)?;
        for output in folder.io.names().filter(|name| name.starts_with("out.")) {
            let expected = folder.io.raw(output)?;
            if is_mask(output) && computed.contains_key(output) {
                continue; // it says what is compared
            }
            let got = computed.get(output).with_context(|| format!("{output} is not computed"))?;
            ensure!(got.numel() == expected.numel(), "{output} has another number of values");
            let got = got.reshape(expected.size());
            checks.absolute(format!("{output} {precision:?}"), &got, expected, folder.tolerance(output, key)?);
        }
    }
    Ok(())
}

/// Does a tensor say which points the reference found?
fn is_mask(name: &str) -> bool {
    name.ends_with("converged") || name.ends_with("valid")
}

/// A case in one precision.
struct Case<'a> {
    folder: &'a Folder,
    kind: Kind,
}

impl Case<'_> {
    fn input(&self, name: &str) -> Result<Tensor> {
        Ok(self.folder.io.raw(&format!("in.{name}"))?.to_kind(self.kind))
    }

    /// A leaf that collects gradients.
    fn leaf(&self, name: &str) -> Result<Tensor> {
        Ok(self.input(name)?.copy().set_requires_grad(true))
    }

    /// `[1, 1, D]` or `[B, 1, D]` codes as a leaf `[B, D]`.
    fn code(&self, name: &str) -> Result<Tensor> {
        Ok(self.input(name)?.squeeze_dim(1).copy().set_requires_grad(true))
    }

    fn has(&self, name: &str) -> bool {
        self.folder.io.raw(name).is_ok()
    }

    fn compute(&self, kind: &str) -> Result<Named> {
        match kind {
            "nphm_identity_forward" => self.identity_forward(),
            "mononphm_identity_backward" => self.identity_backward(),
            "nphm_deformation_forward" => self.deformation_forward(),
            "mononphm_deformation_backward" => self.deformation_backward(),
            "nphm_forward_fit_gradient" => self.forward_fit(),
            "mononphm_composed_field" => self.composed(),
            "mirror_symmetry" => self.mirror(),
            "partition_of_unity" => self.partition(),
            other => bail!("the kind {other} is unknown"),
        }
    }

    fn identity_forward(&self) -> Result<Named> {
        let (vs, net) = self.identity(&self.folder.meta["config"], "weights")?;
        let (x, z) = (self.leaf("x")?, self.code("z")?);
        let anchors = net.anchors(&z);
        let train = net.forward(&x, &z, None, &anchors, Far::Learned);
        let mut out = Named::new();
        out.insert("out.anchors".into(), anchors.shallow_clone());
        out.insert("out.grad_sdf_x".into(), gradient(&train.sdf, &x, false));
        out.insert("out.members".into(), train.members.shallow_clone());
        for (name, far) in [("eval_reference", Far::LastPointOutside), ("global_outside", Far::Outside)] {
            out.insert(format!("out.sdf_{name}"), net.forward(&x, &z, None, &anchors, far).sdf);
        }
        if self.has("in.cot_sdf") {
            let weights = [("lin0_weight", "ensembled_deep_sdf.lin0.weight"), ("mlp_pos0_weight", "mlp_pos.0.weight")];
            let value = (self.input("cot_sdf")?.squeeze_dim(2) * &train.sdf).sum(None::<Kind>);
            put_gradients(&mut out, "vjp", &value, &[("z", &z)], &vs, &weights);
            let eikonal = eikonal(&train.sdf, &x);
            put_gradients(&mut out, "eikonal_grad", &eikonal, &[("z", &z)], &vs, &weights);
            out.insert("out.eikonal".into(), eikonal);
        }
        out.insert("out.sdf_train".into(), train.sdf);
        Ok(out)
    }

    fn identity_backward(&self) -> Result<Named> {
        let (vs, net) = self.identity(&self.folder.meta["config"], "weights")?;
        let (q, z, z_app) = (self.leaf("q")?, self.code("z_geo")?, self.code("z_app")?);
        let anchors = net.anchors(&z);
        let sample = net.forward(&q, &z, Some(&z_app), &anchors, Far::Learned);
        let color = sample.color.context("no colour")?;
        let mut out = Named::new();
        out.insert("out.anchors".into(), anchors.shallow_clone());
        out.insert("out.grad_sdf_q".into(), gradient(&sample.sdf, &q, false));
        if self.has("in.cot_sdf") {
            let value = (self.input("cot_sdf")?.squeeze_dim(2) * &sample.sdf).sum(None::<Kind>)
                + (self.input("cot_color")? * &color).sum(None::<Kind>);
            let geo = [("geo0_lin0_weight", "deepSDFensemble.layers.0.layers.0.weight")];
            let rest = [
                ("mlp_pos0_weight", "mlp_pos.0.weight"),
                ("bottleneck1_weight", "communcation_bottleneck1.weight"),
                ("app0_lin0_weight", "aggr_app.layers.0.layers.0.weight"),
            ];
            let leaves = [("q", &q), ("z_geo", &z), ("z_app", &z_app)];
            put_gradients(&mut out, "vjp", &value, &leaves, &vs, &[&geo[..], &rest].concat());
            let eikonal = eikonal(&sample.sdf, &q);
            put_gradients(&mut out, "eikonal_grad", &eikonal, &[("z_geo", &z)], &vs, &geo);
            out.insert("out.eikonal".into(), eikonal);
        }
        out.insert("out.sdf".into(), sample.sdf);
        out.insert("out.color".into(), color);
        Ok(out)
    }

    fn deformation_forward(&self) -> Result<Named> {
        let net = self.deformation(&self.folder.meta["config"], "weights")?;
        let (x, z_id, z_ex, anchors) = (self.leaf("x")?, self.code("z_id")?, self.code("z_ex")?, self.leaf("anchors")?);
        let delta = net.forward(&x, &net.compress(&z_id, &anchors), &z_ex).0;
        let mut out = Named::new();
        let total = delta.sum(None::<Kind>);
        put_gradients(
            &mut out,
            "grad_sum",
            &total,
            &[("x", &x), ("z_ex", &z_ex)],
            &nn::VarStore::new(Device::Cpu),
            &[],
        );
        out.insert("out.delta".into(), delta);
        if !self.has("in.x_obs") {
            return Ok(out);
        }
        let map = |x: &Tensor| x + net.forward(x, &net.compress(&z_id, &anchors), &z_ex).0;
        let x_obs = self.leaf("x_obs")?;
        let published = broyden_options(&self.folder.meta["config"]["broyden"])?;
        let broyden = models::nphm::roots::solve(&map, &x_obs, &x_obs, &published);
        let (mask, found) = self.found(&published, &broyden.converged)?;
        let missed = found.logical_and(&broyden.converged.logical_not()).sum(Kind::Int64).int64_value(&[]);
        // the reference ran in f64, and its limit is close to what f32 resolves
        ensure!(
            missed == 0 || self.kind == Kind::Float,
            "Broyden did not converge at {missed} points where the reference did"
        );
        out.extend(mask.map(|name| (name, found.shallow_clone())));
        // What Broyden leaves behind at a point that it did not find is no result.
        for (name, got) in [("xc", broyden.x), ("residual", broyden.residual)] {
            let name = format!("out.broyden_reference_{name}");
            if let Ok(expected) = self.folder.io.raw(&name) {
                let mut found = found.shallow_clone();
                if got.dim() > found.dim() {
                    found = found.unsqueeze(2);
                }
                out.insert(name, got.where_self(&found, &expected.to_kind(self.kind).view_as(&got)));
            }
        }

        let root = models::nphm::roots::solve(&map, &x_obs, &x_obs, &exact(published));
        let cot = self.input("cot")?;
        let value = (&cot * &root.x).sum(None::<Kind>);
        let none = nn::VarStore::new(Device::Cpu);
        let leaves = [("z_ex", &z_ex), ("z_id", &z_id), ("anchors", &anchors), ("x_obs", &x_obs)];
        put_gradients(&mut out, "grad", &value, &leaves, &none, &[]);
        let xc = root.x.detach().set_requires_grad(true);
        let posed = map(&xc);
        let rows: Vec<Tensor> = (0..3).map(|i| gradient(&posed.select(2, i), &xc, false)).collect();
        out.insert("out.jac_g_at_xc".into(), Tensor::stack(&rows, 2));
        let value = (&cot * (posed - &xc)).sum(None::<Kind>);
        put_gradients(&mut out, "vjp_delta", &value, &[("x", &xc), ("z_ex", &z_ex), ("z_id", &z_id)], &none, &[]);
        out.insert("out.xc".into(), root.x);
        Ok(out)
    }

    /// The points that the reference found, booleans in the shape of `ours`, and the name of the mask that says so.
    /// Without a mask its residuals tell, and without these it found all.
    fn found(&self, options: &Options, ours: &Tensor) -> Result<(Option<String>, Tensor)> {
        let mut masks = self.folder.io.names().filter(|name| is_mask(name));
        let (mask, found) = match (masks.next(), self.folder.io.raw("out.broyden_reference_residual")) {
            (Some(mask), _) => (Some(mask.to_owned()), self.folder.io.raw(mask)?.to_kind(Kind::Bool)),
            (None, Ok(residual)) => (None, residual.less(options.converge)),
            (None, Err(_)) => (None, ours.ones_like()),
        };
        ensure!(masks.next().is_none(), "there are several masks of points found");
        ensure!(found.numel() == ours.numel(), "there are {} points, but {} are marked", ours.numel(), found.numel());
        Ok((mask, found.view_as(ours)))
    }

    fn deformation_backward(&self) -> Result<Named> {
        let net = self.deformation(&self.folder.meta["config"], "weights")?;
        let (x, z, z_ex, anchors) = (self.leaf("x")?, self.code("z_geo")?, self.code("z_ex")?, self.leaf("anchors")?);
        let (delta, omega) = net.forward(&x, &net.compress(&z, &anchors), &z_ex);
        let mut out = Named::new();
        let none = nn::VarStore::new(Device::Cpu);
        let both = Tensor::cat(&[&delta, &omega], 2);
        put_gradients(&mut out, "grad_sum", &both.sum(None::<Kind>), &[("x", &x), ("z_ex", &z_ex)], &none, &[]);
        if self.has("in.cot_delta") {
            let rows: Vec<Tensor> = (0..both.size()[2]).map(|i| gradient(&both.select(2, i), &x, false)).collect();
            out.insert("out.jac".into(), Tensor::stack(&rows, 2));
            let cot = Tensor::cat(&[self.input("cot_delta")?, self.input("cot_omega")?], 2);
            let leaves = [("x", &x), ("z_geo", &z), ("z_ex", &z_ex), ("anchors", &anchors)];
            put_gradients(&mut out, "vjp", &(cot * &both).sum(None::<Kind>), &leaves, &none, &[]);
        }
        out.insert("out.delta".into(), delta);
        out.insert("out.omega".into(), omega);
        Ok(out)
    }

    fn forward_fit(&self) -> Result<Named> {
        let (_vs, identity) = self.identity(&self.folder.meta["config"]["identity"], "weights_id")?;
        let net = self.deformation(&self.folder.meta["config"]["deformation"], "weights_ex")?;
        let (x_obs, z_id, z_ex) = (self.input("x_obs")?, self.code("z_id")?, self.code("z_ex")?);
        let anchors = identity.anchors(&z_id);
        let compressed = net.compress(&z_id, &anchors);
        let map = |x: &Tensor| x + net.forward(x, &compressed, &z_ex).0;
        let config = &self.folder.meta["config"];
        let configured = [&config["broyden"], &config["deformation"]["broyden"]].into_iter().find(|c| !c.is_null());
        let published = configured.map_or(Ok(Options::default()), broyden_options)?;
        let root = models::nphm::roots::solve(&map, &x_obs, &x_obs, &exact(published));
        let sdf = identity.forward(&root.x, &z_id, None, &anchors, Far::Learned).sdf;
        let mut out = Named::new();
        let value = (self.input("cot_sdf")?.squeeze_dim(2) * &sdf).sum(None::<Kind>);
        put_gradients(
            &mut out,
            "grad",
            &value,
            &[("z_id", &z_id), ("z_ex", &z_ex)],
            &nn::VarStore::new(Device::Cpu),
            &[],
        );
        out.insert("out.xc".into(), root.x);
        out.insert("out.sdf".into(), sdf);
        Ok(out)
    }

    fn composed(&self) -> Result<Named> {
        let (_vs, identity) = self.identity(&self.folder.meta["config"]["identity"], "weights_id")?;
        let net = self.deformation(&self.folder.meta["config"]["deformation"], "weights_ex")?;
        let (x, z, z_app, z_ex) = (self.leaf("x")?, self.code("z_geo")?, self.code("z_app")?, self.code("z_ex")?);
        let anchors = identity.anchors(&z);
        let (delta, omega) = net.forward(&x, &net.compress(&z, &anchors), &z_ex);
        let q = Tensor::cat(&[&x + delta, omega], 2);
        let sample = identity.forward(&q, &z, Some(&z_app), &anchors, Far::Learned);
        let color = sample.color.context("no colour")?;
        let mut out = Named::new();
        out.insert("out.grad_sdf_x".into(), gradient(&sample.sdf, &x, false));
        let value = (self.input("cot_sdf")?.squeeze_dim(2) * &sample.sdf).sum(None::<Kind>)
            + (self.input("cot_color")? * &color).sum(None::<Kind>);
        let none = nn::VarStore::new(Device::Cpu);
        let leaves = [("x", &x), ("z_geo", &z), ("z_app", &z_app), ("z_ex", &z_ex)];
        put_gradients(&mut out, "vjp", &value, &leaves, &none, &[]);
        let eikonal = eikonal(&sample.sdf, &x);
        put_gradients(&mut out, "eikonal_grad", &eikonal, &[("z_geo", &z), ("z_ex", &z_ex)], &none, &[]);
        out.insert("out.eikonal".into(), eikonal);
        out.insert("out.q".into(), q);
        out.insert("out.sdf".into(), sample.sdf);
        out.insert("out.color".into(), color);
        Ok(out)
    }

    fn mirror(&self) -> Result<Named> {
        let (_vs, net) = self.identity(&self.folder.meta["config"], "weights")?;
        let (points, code) = if self.has("in.q") { ("q", "z_geo") } else { ("x", "z") };
        let z = self.code(code)?;
        let z_app = self.has("in.z_app").then(|| self.code("z_app")).transpose()?;
        let anchors = net.anchors(&z);
        let mut out = Named::new();
        for suffix in ["", "_mirrored"] {
            let q = self.input(&format!("{points}{suffix}"))?;
            let sample = net.forward(&q, &z, z_app.as_ref(), &anchors, Far::Learned);
            out.insert(format!("out.sdf{suffix}"), sample.sdf);
            out.extend(sample.color.map(|c| (format!("out.color{suffix}"), c)));
        }
        out.insert("out.anchors".into(), anchors);
        Ok(out)
    }

    fn partition(&self) -> Result<Named> {
        let (vs, net) = self.identity(&self.folder.meta["config"], "weights")?;
        let (x, z) = (self.input("x")?, self.code("z")?);
        let anchors = net.anchors(&z);
        let constants = net.forward(&x, &z, None, &anchors, Far::Learned);
        let mut out = Named::new();
        out.insert("out.sum_w".into(), constants.weight_sum);
        out.insert("out.sdf_per_member_constants".into(), constants.sdf);
        let last = format!("ensembled_deep_sdf.lin{}.bias", net.config.layers);
        let mut bias = vs.variables().remove(&last).context("no last bias")?;
        for name in self.folder.io.names() {
            let Some(digits) = name.strip_prefix("out.sdf_all_") else { continue };
            let constant = constant_of(digits)?;
            tch::no_grad(|| _ = bias.fill_(constant));
            out.insert(name.into(), net.forward(&x, &z, None, &anchors, Far::Learned).sdf);
        }
        out.insert("out.anchors".into(), anchors);
        Ok(out)
    }

    fn identity(&self, config: &Value, weights: &str) -> Result<(nn::VarStore, Identity)> {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = Identity::new(&vs.root(), &identity_config(config)?, &self.input("mean_anchors")?)?;
        vs.set_kind(self.kind);
        models::weights::load_tensors(&vs, &self.weights(config, weights)?, &self.folder.dir.display().to_string())?;
        Ok((vs, net))
    }

    fn deformation(&self, config: &Value, weights: &str) -> Result<Deformation> {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = Deformation::new(&vs.root(), &deformation_config(config)?);
        vs.set_kind(self.kind);
        models::weights::load_tensors(&vs, &self.weights(config, weights)?, &self.folder.dir.display().to_string())?;
        Ok(net)
    }

    /// Weights from the named file, or by the closed form of the network's `weight_rule`.
    fn weights(&self, config: &Value, name: &str) -> Result<Named> {
        if let Some(file) = self.folder.meta["files"][name].as_str() {
            let path = self.folder.dir.join(file);
            return Ok(models::weights::read(&path)?);
        }
        let nothing = || format!("there is neither a file {name} nor a weight_seed for it");
        let seed = config["weight_seed"].as_u64().with_context(nothing)?;
        weight_rule(config)?;
        let manifest = config["manifest"].as_array().context("config.manifest")?;
        let mut all = Named::new();
        for (t, row) in manifest.iter().enumerate() {
            let key = row[0].as_str().context("manifest key")?;
            let shape: Vec<i64> = serde_json::from_value(row[1].clone())?;
            let bound = row[2].as_f64().context("manifest bound")?;
            let values = closed_form(seed, t as u64, shape.iter().product::<i64>() as u64, bound);
            if let Some(first) = config["weight_first8"][key].as_array() {
                let same = first.iter().zip(&values).all(|(a, b)| a.as_f64() == Some(f64::from(*b)));
                ensure!(same, "closed-form weights of {key} do not start as recorded");
            }
            all.insert(key.into(), Tensor::from_slice(&values).reshape(shape));
        }
        Ok(all)
    }
}

/// The number in a tensor's name, with `_` for its point.
fn constant_of(digits: &str) -> Result<f64> {
    let number = digits.replacen('_', ".", 1);
    number.parse().ok().with_context(|| format!("out.sdf_all_{digits}: `{number}` is no number"))
}

/// Mean over points of | |grad_xyz sdf| - 1 |, differentiable again.
fn eikonal(sdf: &Tensor, x: &Tensor) -> Tensor {
    let xyz = gradient(sdf, x, true).narrow(2, 0, 3);
    (xyz.square().sum_dim_intlist(2, false, None::<Kind>).sqrt() - 1.0).abs().mean(None::<Kind>)
}

/// Puts `out.{prefix}_{name}` = d value / d leaf for leaves and variables.
fn put_gradients(
    out: &mut Named,
    prefix: &str,
    value: &Tensor,
    leaves: &[(&str, &Tensor)],
    vs: &nn::VarStore,
    variables: &[(&str, &str)],
) {
    let all = vs.variables();
    let mut names: Vec<String> = leaves.iter().map(|(name, _)| name.to_string()).collect();
    let mut inputs: Vec<Tensor> = leaves.iter().map(|(_, leaf)| leaf.shallow_clone()).collect();
    for (name, key) in variables {
        names.push(name.to_string());
        inputs.push(all[*key].shallow_clone());
    }
    let gradients = Tensor::run_backward(&[value], &inputs, true, false);
    out.extend(names.iter().map(|name| format!("out.{prefix}_{name}")).zip(gradients));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn constants_are_read_from_names() {
        for (digits, constant) in [("0_75", 0.75), ("0_5", 0.5), ("1", 1.0), ("-2_25", -2.25)] {
            assert_eq!(constant_of(digits).unwrap(), constant);
        }
        assert!(constant_of("half").unwrap_err().to_string().contains("out.sdf_all_half"));
    }

    /// A network within a case has a description of its own, closed-form weights included.
    #[test]
    fn weights_are_made_as_each_network_says() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/nphm/real_forward_def");
        let own = check::json(&dir.join("meta.json")).unwrap()["config"].clone();
        let io = check::Case::read(&dir.join("io.safetensors")).unwrap();
        let meta = serde_json::json!({ "config": { "deformation": own }, "files": {} });
        let folder = Folder { dir, meta, io };
        let case = Case { folder: &folder, kind: Kind::Float };
        let config = &folder.meta["config"];
        assert!(case.weights(config, "weights_ex").unwrap_err().to_string().contains("weights_ex"));
        let weights = case.weights(&config["deformation"], "weights_ex").unwrap();
        assert_eq!(weights.len(), config["deformation"]["manifest"].as_array().unwrap().len());
        case.deformation(&config["deformation"], "weights_ex").unwrap();
    }
}
