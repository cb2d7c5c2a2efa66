//! `parity DIR`: runs every case of a folder of reference inputs and outputs against our implementations, prints the
//! worst error of each beside its tolerance, and fails if one is over, unknown or missing. This file only looks what
//! lies in the folder; each family of cases has a file of its own.

mod avatar;
mod check;
mod conventions;
mod diffusion;
mod folder;
mod formula;
mod mc;
mod metrics;
mod noise_floor;
mod nphm;
mod nphm_config;
mod raster;
mod releases;
mod schedulers;
mod settings;
mod training;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use check::Report;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: parity DIR   (a folder of reference cases)");
        return ExitCode::from(2);
    };
    // small networks: on a machine that others use as well, threads would wait for each other most of the time
    models::runtime::prepare(1);
    let report = run(&PathBuf::from(dir));
    println!("{} passed, {} failed", report.passed, report.failed.len());
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs everything in `dir`. What is not understood is a failure, as is a folder without cases.
fn run(dir: &Path) -> Report {
    let mut report = Report::default();
    for name in &names(dir) {
        let path = dir.join(name);
        match name.as_str() {
            "metrics" => metrics::run(&path, &mut report),
            "mc" => mc::run(&path, &mut report),
            "raster" => raster::run(&path, &mut report),
            "avatar" => folder::run(&path, "avatar", &mut report, avatar::run),
            "releases" => folder::run(&path, "releases", &mut report, releases::run),
            "shapes" => diffusion::run_each(&path, &mut report),
            "nphm" => folder::run(&path, "nphm", &mut report, nphm::run),
            "triplane.safetensors" => avatar::planes(&path, &mut report),
            "face_mesh" | "face_descriptor" => {
                report.left(name, "its weights are data packages: the tests of the crate `models` run it");
            }
            other if is_note(other) || diffusion::FILES.contains(&other) => {}
            other => report.fail(other, "this kind of case is unknown"),
        }
    }
    diffusion::run(dir, "", &mut report);
    if report.passed == 0 && report.failed.is_empty() {
        report.fail(&dir.display().to_string(), "there are no reference cases in this folder");
    }
    report
}

/// What lies in a folder, sorted; hidden files are not looked at.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Words on the cases, and the programs that made them with what these leave behind.
fn is_note(name: &str) -> bool {
    let words = [".md", ".py", ".txt", ".sh", ".log"];
    words.iter().any(|ending| name.ends_with(ending)) || ["LICENSE", "SHA256SUMS", "__pycache__"].contains(&name)
}

/// Reports what lies in a folder of cases and belongs to none of them; `family` stands before its name.
fn strangers(dir: &Path, family: &str, report: &mut Report, is_known: impl Fn(&str) -> bool) {
    for name in names(dir).iter().filter(|name| !is_note(name) && !is_known(name.as_str())) {
        report.fail(&format!("{family}/{name}"), "no case asks for this file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::weights::{self, Precision};

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-parity-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("avatar")).unwrap();
        dir
    }

    #[test]
    fn the_committed_cases_pass() {
        models::runtime::prepare(1);
        let report = run(&golden());
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert!(report.passed > 40);
    }

    #[test]
    fn a_changed_reference_is_noticed() {
        let dir = scratch("changed");
        let name = "triplane.safetensors";
        let mut tensors = weights::read(&golden().join(name)).unwrap();
        let copy = |tensors: &weights::Tensors| {
            std::fs::remove_dir(dir.join("avatar")).ok();
            weights::write(&dir.join(name), tensors, &Default::default(), Precision::Keep).unwrap();
            run(&dir)
        };
        assert_eq!((copy(&tensors).passed, copy(&tensors).failed.len()), (1, 0));
        for wrong in [1e-3, f64::NAN] {
            let sum = tensors.remove("ac0.zeros.sum").unwrap();
            tensors.insert("ac0.zeros.sum".into(), &sum + wrong);
            assert_eq!(copy(&tensors).failed, ["triplane"], "{wrong}");
            tensors.insert("ac0.zeros.sum".into(), sum);
        }
        tensors.remove("ac0.zeros.sum");
        assert_eq!(copy(&tensors).failed, ["triplane"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_unknown_missing_or_empty_fails() {
        let dir = scratch("unknown");
        std::fs::write(dir.join("avatar/cases.json"), r#"[{"case": "absent", "kind": "quantizer"}]"#).unwrap();
        std::fs::create_dir(dir.join("avatar/unlisted")).unwrap();
        std::fs::write(dir.join("new.safetensors"), "").unwrap();
        assert_eq!(run(&dir).failed, ["avatar/absent", "avatar/unlisted", "new.safetensors"]);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(run(&dir).failed.len(), 1);
    }

    /// A folder of this name with these files in it.
    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = scratch(name);
        std::fs::remove_dir_all(&dir).unwrap();
        for (file, text) in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn files_that_no_case_asks_for_fail() {
        let dir = folder(
            "strangers",
            &[
                ("avatar/cases.json", "[]"),
                ("avatar/README.md", ""),
                ("mc/expected.json", "{}"),
                ("mc/odd.safetensors", ""),
                ("metrics/odd.json", ""),
                ("metrics/expected.json", "{}"),
                ("models/vae_legacy_names/config.json", ""),
                ("models/unet/config.json", ""),
                ("models/odd/config.json", ""),
                ("raster/scenes.json", "{}"),
                ("raster/odd.safetensors", ""),
                ("shapes/one/odd.safetensors", ""),
            ],
        );
        let grid = weights::Tensors::from([("unlisted".to_owned(), tch::Tensor::from_slice(&[0.0f32]))]);
        weights::write(&dir.join("mc/grid3.safetensors"), &grid, &Default::default(), Precision::Keep).unwrap();
        let failed = run(&dir).failed;
        std::fs::remove_dir_all(&dir).unwrap();
        for name in [
            "avatar",
            "mc",
            "mc/grid3.safetensors",
            "mc/odd.safetensors",
            "metrics/odd.json",
            "metrics/pairs",
            "models/odd",
            "models/unet",
            "models/vae_legacy_names",
            "raster",
            "raster/odd.safetensors",
            "shapes/one/odd.safetensors",
        ] {
            assert!(failed.iter().any(|found| found == name), "{name} is not in {failed:?}");
        }
        assert!(!failed.iter().any(|found| found.ends_with(".md")), "{failed:?}");
    }

    #[test]
    fn tensors_that_no_comparison_knows_fail() {
        let dir = folder("tensors", &[("models/README.md", "")]);
        std::os::unix::fs::symlink(golden().join("models/vae"), dir.join("models/vae")).unwrap();
        for (name, case) in [("vae.safetensors", "vae"), ("triplane.safetensors", "triplane")] {
            let mut tensors = weights::read(&golden().join(name)).unwrap();
            tensors.insert("another".into(), tch::Tensor::from_slice(&[0.0f32]));
            weights::write(&dir.join(name), &tensors, &Default::default(), Precision::Keep).unwrap();
            assert!(run(&dir).failed.iter().any(|found| found == case), "{case}");
            tensors.remove("another");
            weights::write(&dir.join(name), &tensors, &Default::default(), Precision::Keep).unwrap();
            assert!(run(&dir).failed.is_empty());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
