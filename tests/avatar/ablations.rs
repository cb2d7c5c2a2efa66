//! The recipe of the ablations: all of it can be planned, and two of its variants, run for real on top of the shared
//! run, do again only what differs, and stand in one table.

use crate::base::Trial;

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/ablations.yaml");

#[test]
fn variants_do_again_what_differs_and_stand_in_one_table() {
    let trial = Trial::finished().of(RECIPE);
    let two = ["--variant", "full", "--variant", "no_diffusion", "--variant", "seed=1"];
    let ran = trial.run(&two);
    for stage in ["avatar", "renders", "scores", "faces"] {
        for variant in ["full", "no_diffusion"] {
            let name = format!("{stage}@{variant},seed=1");
            assert!(ran.contains_key(&name), "{name}: {ran:?}");
        }
    }
    // frames, tracking, latents and backbone are those of avatar.yaml; the linear model waits for the variant that
    // needs it
    let shared: Vec<&str> = ran.keys().map(String::as_str).filter(|name| !name.contains("seed=1")).collect();
    assert_eq!(shared, ["sheet"]);
    assert_eq!(trial.run(&two), Default::default());

    let table = trial.command("table", &[&two[..], &["--only", "1", "--format", "csv"]].concat()).output();
    let text = String::from_utf8(table.expect("it starts").stdout).expect("text");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let [full, direct] = &rows[..] else { panic!("{text}") };
    assert_eq!((full[..2].to_vec(), direct[..2].to_vec()), (vec!["full", "1"], vec!["no_diffusion", "1"]), "{text}");
    assert!(full[2] != direct[2] && full[2].parse::<f64>().is_ok_and(|psnr| psnr > 5.0), "{text}");
}

#[test]
fn all_variants_and_seeds_can_be_planned() {
    let trial = Trial::finished().of(RECIPE);
    let words = ["plan", RECIPE, "--profile", "quick", "--json"];
    let said = trial.space.command_with_packages(&words).output().expect("it starts");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let stages = plan["stages"].as_array().expect("a list");
    let of = |name: &str, kind: &str| {
        let is = |one: &&serde_json::Value| {
            one["stage"].as_str().is_some_and(|stage| stage.starts_with(name)) && one["kind"] == kind
        };
        stages.iter().filter(is).count()
    };
    assert_eq!((of("capture", "capture_synthetic"), of("head_model", "train_head_model")), (1, 1));
    assert_eq!(
        (of("avatar@", "train_avatar"), of("tracked@", "track_head"), of("tracked@", "fit_pca_head")),
        (16, 7, 1)
    );
}
