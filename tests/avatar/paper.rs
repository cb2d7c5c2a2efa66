//! The paper's profile on a machine that cannot run it: it says what it lacks, and with weights in place it is sound
//! and checks them.

use crate::support::{Said, Space};
use serde_json::Value;

/// A command on the shipped recipe in that profile, with the data packages of whoever runs the tests.
fn paper(space: &Space, verb: &str, words: &[&str]) -> Said {
    let recipe = crate::base::recipe();
    space.effigy_with_packages(&[&[verb, recipe.as_str()], words, &["--profile", "paper"]].concat())
}

#[test]
fn without_stable_diffusion_it_says_so() {
    let space = Space::new();
    let said = paper(&space, "plan", &[]);
    said.expect_error(2, &["stage `backbone`", "weights/stable-diffusion-2-1", "is not there", "hint:"]);
    let recipe = crate::base::recipe();
    let said = space.effigy_with_packages(&["doctor", "--recipe", &recipe, "--profile", "paper"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let line = said.out.lines().find(|line| line.contains("recipe") && line.contains("stable-diffusion-2-1"));
    assert!(line.is_some_and(|line| line.starts_with("missing")), "{}", said.out);
}

/// Weights in the layout of Stable Diffusion, with the scheduler as it is published: leading steps, no zero terminal
/// SNR.
#[test]
fn with_weights_it_is_sound_and_rescales_their_schedule() {
    let space = Space::new();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/weights/prior-64");
    let copied = std::process::Command::new("cp").arg("-r").arg(shipped).arg(space.path("sd")).status();
    assert!(copied.expect("cp is there").success());
    let scheduler = "sd/scheduler/scheduler_config.json";
    let mut config: Value = serde_json::from_str(&space.read(scheduler)).expect("JSON");
    let published = config.as_object_mut().expect("an object");
    published.remove("rescale_betas_zero_snr");
    published.remove("timestep_spacing");
    space.write(scheduler, &config.to_string());
    space.settle();

    let prior = format!("prior={}", space.path("sd").display());
    let words = ["--param", prior.as_str()];
    let said = paper(&space, "plan", &[&words[..], &["--json"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let plan = said.json();
    let stages = plan["stages"].as_array().expect("a list");
    for stage in ["capture", "tracked", "avatar", "renders", "scores"] {
        assert!(stages.iter().any(|planned| planned["stage"] == stage), "{plan}");
    }

    let recipe = crate::base::recipe();
    let doctor = |more: &[&str]| {
        let words =
            [&["doctor", "--json", "--recipe", recipe.as_str(), "--profile", "paper"], &words[..], more].concat();
        let said = space.effigy_with_packages(&words);
        let findings = said.json()["findings"].as_array().expect("a list").clone();
        let weights = findings.into_iter().filter(|one| one["what"] == "weights");
        let texts = weights.map(|one| one["text"].as_str().expect("a text").to_owned());
        // the head model's are no matter here
        (said.code, texts.filter(|text| text.contains("`backbone`")).collect::<Vec<_>>())
    };
    let (code, texts) = doctor(&[]);
    assert_eq!(code, 0, "{texts:?}");
    for part in
        ["`backbone`: vae: all ", "`backbone`: unet: all ", " tensors fit (", "stored embedding of the empty text"]
    {
        assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:?}");
    }
    let (code, texts) = doctor(&["--set", "backbone.prompt=a head"]);
    assert!(code == 1 && texts[0].contains("needs a text encoder"), "{texts:?}");

    let said = paper(&space, "run", &[&words[..], &["--only", "backbone"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let said = paper(&space, "show", &[&["backbone"], &words[..], &["--json", "--paths"]].concat());
    let rows: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    let row = rows.iter().find(|row| row["component"] == "scheduler").expect("it has a schedule");
    let path = row["config"].as_str().expect("a path");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON");
    assert_eq!(written["rescale_betas_zero_snr"], true);
    assert_eq!(written["timestep_spacing"], "trailing");
    assert_eq!(written["prediction_type"], "v_prediction");

    // weights of another model: the name of what does not fit, not a network that half fits
    let config = space.read("sd/unet/config.json").replace("\"cross_attention_dim\": ", "\"cross_attention_dim\": 1");
    std::fs::remove_file(space.path("sd/unet/config.json")).expect("it is there");
    space.write("sd/unet/config.json", &config);
    space.settle();
    let (code, texts) = doctor(&[]);
    assert!(code == 1 && texts.len() == 1 && texts[0].contains("attn2.to_k.weight"), "{texts:?}");
}
