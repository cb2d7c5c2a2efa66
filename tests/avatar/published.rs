//! Models that others published, put in the place of ours: loaded, taken by the next stage, or refused with one clear
//! error. The files are reference cases in the published layouts; their weights are random.

use crate::bad_input::one_error;
use crate::support::Space;

/// A file among the reference cases.
fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The bytes of a numpy file of f64.
fn npy(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let shape: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\0".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    file
}

/// A folder with anchors for the reference case of a generation, a cloud of a ball where the face is, and a recipe.
fn space(generation: &str) -> Space {
    let space = Space::new();
    // pairs first, then the middle
    let (pairs, middle) = if generation == "backward" { (4, 3) } else { (3, 3) };
    let anchors: Vec<f64> = (0..2 * pairs + middle)
        .flat_map(|k| {
            let (turn, side) = (f64::from(k / 2), if k < 2 * pairs { [-0.2, 0.2][k as usize % 2] } else { 0.0 });
            [side, 0.1 * turn.sin(), 0.2 * turn.cos()]
        })
        .collect();
    std::fs::write(space.path("anchors.npy"), npy(&[anchors.len() / 3, 3], &anchors)).expect("it can be written");
    let mut cloud = b"ply\nformat binary_little_endian 1.0\nelement vertex 400\n".to_vec();
    ["x", "y", "z", "nx", "ny", "nz"].iter().for_each(|name| cloud.extend(format!("property float {name}\n").bytes()));
    cloud.extend(b"end_header\n");
    for i in 0..400 {
        let (y, turn) = (1.0 - (2 * i + 1) as f32 / 400.0, i as f32 * 2.4);
        let (x, z) = ((1.0 - y * y).sqrt() * turn.cos(), (1.0 - y * y).sqrt() * turn.sin());
        // world metres
        let values = [0.06 * x, 0.06 * y, 0.05 + 0.06 * z, x, y, z];
        values.iter().for_each(|value| cloud.extend(value.to_le_bytes()));
    }
    std::fs::write(space.path("cloud.ply"), &cloud).expect("it can be written");
    let weights = |part: &str| golden(&format!("nphm/{generation}_{part}/weights.safetensors"));
    space.write(
        "r.yaml",
        &format!(
            "recipe: published
stages:
  head_model: {{ stage: load_head_model, checkpoint: {}, expression: {}, anchors: anchors.npy }}
  files: {{ files: cloud.ply }}
  points: {{ select: files, rename: {{ cloud: file }}, set: {{ participant: 1, sequence: a, timestep: 0 }} }}
  person: {{ stage: fit_identity, from: points, by: [participant], with: {{ head_model: head_model }}, key_frames: 1, steps: 2 }}
",
            weights("id"),
            weights("def")
        ),
    );
    space.settle();
    space
}

#[test]
fn a_mononphm_is_fitted_like_our_own_head_model() {
    // 16 global numbers and 8 for each of 11 anchors and the global member
    fitted(&space("backward"), 112);
}

#[test]
fn so_is_an_nphm_which_deforms_forward() {
    // of 9 anchors
    fitted(&space("forward"), 96);
}

fn fitted(space: &Space, identity: usize) {
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = space.effigy(&["show", "r.yaml", "person", "--json", "--paths"]);
    let row: serde_json::Value = serde_json::from_str(shown.out.lines().next().expect("a row")).expect("JSON");
    let person = std::fs::read_to_string(row["person"].as_str().expect("a path")).expect("a file");
    let person: serde_json::Value = serde_json::from_str(&person).expect("JSON");
    assert_eq!(person["z_id"].as_array().map(Vec::len), Some(identity));
    assert!(row["residual"].as_f64().is_some_and(f64::is_finite), "{row}");
    assert_eq!(space.run(), (0, 2, 0));
}

#[test]
fn anchors_of_another_model_are_refused() {
    let space = space("backward");
    std::fs::write(space.path("anchors.npy"), npy(&[2, 3], &[0.0; 6])).expect("it can be written");
    space.settle();
    one_error(&space.effigy(&["run", "r.yaml"]), 1, &["stage `head_model`", "[2, 3]", "the model has 11 anchors"]);
    // cut short: a shape of 33 numbers, and 6 of them
    std::fs::write(space.path("anchors.npy"), npy(&[11, 3], &[0.0; 6])).expect("it can be written");
    space.settle();
    one_error(&space.effigy(&["run", "r.yaml"]), 1, &["stage `head_model`", "anchors.npy", "[11, 3]"]);
    std::fs::remove_file(space.path("anchors.npy")).expect("it is there");
    one_error(&space.effigy(&["run", "r.yaml"]), 2, &["anchors.npy"]);
}

#[test]
fn a_linear_head_comes_out_the_same_from_both_of_its_forms() {
    let space = Space::new();
    let write = |name: &str, more: &str| {
        let path = format!("{}/stages/models/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let stage = format!("stage: load_linear_head, path: {path}, shapes: 5{more}");
        space.write("l.yaml", &format!("recipe: l\nstages:\n  head: {{ {stage} }}\n"));
        space.settle();
    };
    let row = |name: &str| {
        // its numbers are random, some metres large
        write(name, ", scale: 0.1");
        let said = space.effigy(&["run", "l.yaml"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let shown = space.effigy(&["show", "l.yaml", "head", "--json"]);
        serde_json::from_str::<serde_json::Value>(shown.out.lines().next().expect("a row")).expect("JSON")
    };
    let (npz, pickle) = (row("linear.npz"), row("linear_protocol_2.pkl"));
    assert_eq!(npz, pickle);
    for (name, value) in [("vertices", 12), ("joints", 4), ("shape_width", 5), ("expression_width", 2)] {
        assert_eq!(npz[name], value, "{name}");
    }
    write("linear.npz", "");
    let parts = ["stage `head`", "linear.npz", "4.554 m large, expected 0.1 to 0.8 m", "`scale` is metres per unit"];
    one_error(&space.effigy(&["run", "l.yaml"]), 1, &parts);
}

#[test]
fn a_head_model_of_our_own_is_a_folder() {
    let space = Space::new();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/weights/head-mini");
    std::fs::create_dir(space.path("head")).expect("a folder");
    for name in ["head.json", "head.safetensors"] {
        std::fs::copy(format!("{shipped}/{name}"), space.path(&format!("head/{name}"))).expect("a copy");
    }
    let recipe = |more: &str| {
        format!("recipe: r\nstages:\n  head_model: {{ stage: load_head_model, checkpoint: head{more} }}\n")
    };
    space.write("r.yaml", &recipe(""));
    assert_eq!(space.run(), (1, 0, 0));
    let config: serde_json::Value =
        serde_json::from_str(&space.file("head_model", 0, "head_config")).expect("dimensions");
    assert_eq!(config["deformation"]["d_ex"], 52);
    // what a folder holds is not to be told again
    space.write("r.yaml", &recipe(", anchors: head/head.json"));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["holds all of a model", "hint:"]);
    // another model's dimensions, half of a file, none
    let text = std::fs::read_to_string(space.path("head/head.json")).expect("text");
    space.write("r.yaml", &recipe(""));
    space.write("head/head.json", &text.replace("\"d_ex\": 52", "\"d_ex\": 40"));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["head.safetensors", "hint:"]);
    space.write("head/head.json", &text[..text.len() / 2]);
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["head.json does not describe a head model"]);
    std::fs::remove_file(space.path("head/head.json")).expect("it goes");
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["cannot read", "head.json"]);
}
