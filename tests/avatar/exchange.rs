//! Exchange with DiffusionAvatars' folders: out by `export`, in again by the sources, the same integers on either side.

use crate::support::{Said, Space};

const CAMERAS: &str = "
  cameras:
    rows:
      - { camera: '222200037', width: 48, height: 48, intrinsics: [60.0, 0.0, 24.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0], world_to_cam: [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0] }
      - { camera: '220700191', width: 48, height: 48, intrinsics: [55.0, 0.0, 23.0, 0.0, 55.0, 25.0, 0.0, 0.0, 1.0], world_to_cam: [1.0, 0.0, 0.0, 0.02, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.1, 0.0, 0.0, 0.0, 1.0] }
";

const OUT: &str = "
recipe: out
stages:
  frames:
    rows:
      - { camera: '222200037', sequence: EMO-1-shout+laugh, timestep: 0, participant: 18, expression: [0.25, -1.0], eyes: [0.0, 0.25, 0.0, 0.0, 0.25, 0.0], pose: [0.0, 0.5, 0.0, 0.0, 0.0, 0.0] }
      - { camera: '220700191', sequence: EMO-1-shout+laugh, timestep: 0, participant: 18, expression: [0.25, -1.0], eyes: [0.0, 0.25, 0.0, 0.0, 0.25, 0.0], pose: [0.0, 0.5, 0.0, 0.0, 0.0, 0.0] }
      - { camera: '222200037', sequence: EMO-1-shout+laugh, timestep: 3, participant: 18, expression: [0.5, 2.0], eyes: [0.0, 0.5, 0.0, 0.0, 0.5, 0.0], pose: [0.0, 0.5, 0.0, 0.0, 0.0, 0.0] }
      - { camera: '220700191', sequence: EMO-1-shout+laugh, timestep: 3, participant: 18, expression: [0.5, 2.0], eyes: [0.0, 0.5, 0.0, 0.0, 0.5, 0.0], pose: [0.0, 0.5, 0.0, 0.0, 0.0, 0.0] }
  found: { files: 'mesh/*.ply', parse: 'mesh/{sequence}_{timestep:i64}.ply' }
  meshes: { select: found, columns: [sequence, timestep, mesh], rename: { mesh: file } }
  person_file: { files: person.json }
  person: { select: person_file, rename: { person: file } }
  seen: { join: [frames, cameras], on: [camera] }
  views: { join: [seen, meshes], on: [sequence, timestep] }
  gbuffers: { stage: raster_gbuffer, from: views, size: 48, crops: 0 }
  pictures: { stage: export_rendering_data, from: views, name: test, downscale_factor: 1 }
  description: { stage: describe_rendering_data, from: pictures, name: test, downscale_factor: 1 }
  tracking: { stage: export_tracking, from: views, with: { person: person } }
  flame: { stage: export_flame, from: views, with: { person: person } }
";

const IN: &str = "
recipe: in
stages:
  pictures: { stage: source_rendering_data, path: data/rendering_data/v1.0-test }
  views: { join: [pictures, cameras], on: [camera] }
  gbuffers: { stage: import_rendering_data, from: views, size: 48, crops: 0 }
  codes: { stage: source_nphm_tracking, path: data }
  flame: { stage: source_nersemble_flame, path: data/nersemble }
  posed: { join: [codes, flame], on: [participant, sequence, timestep] }
  fits: { stage: import_tracked_mesh, from: posed }
";

/// A bent sheet of nine vertices, moved by `shift`, with canonical coordinates.
fn mesh(shift: f32) -> Vec<u8> {
    let mut file = b"ply\nformat binary_little_endian 1.0\nelement vertex 9\n".to_vec();
    for name in ["x", "y", "z", "canonical_x", "canonical_y", "canonical_z", "ambient_0", "ambient_1"] {
        file.extend(format!("property float {name}\n").bytes());
    }
    file.extend(b"element face 8\nproperty list uchar int vertex_indices\nend_header\n");
    for i in 0..9 {
        let (x, y) = ((i % 3) as f32 - 1.0, (i / 3) as f32 - 1.0);
        let position = [0.2 * x + shift, 0.25 * y + 0.01 * x, 0.05 * x - 0.08 * y + 0.03 * x * y];
        let values = position.into_iter().chain([0.7 * x, 0.6 * y, 0.2 * x * y - 0.4, 0.1 * y, -0.15 * x]);
        file.extend(values.flat_map(f32::to_le_bytes));
    }
    for i in [0i32, 1, 3, 4] {
        for face in [[i, i + 1, i + 3], [i + 1, i + 4, i + 3]] {
            file.push(3);
            file.extend(face.into_iter().flat_map(i32::to_le_bytes));
        }
    }
    file
}

fn start() -> Space {
    let space = Space::new();
    space.write("person.json", "{\"z_id\": [], \"scale\": 1.0}");
    for (timestep, shift) in [(0, 0.0), (3, 0.03)] {
        std::fs::create_dir_all(space.path("mesh")).expect("a folder");
        let path = space.path(&format!("mesh/EMO-1-shout+laugh_{timestep}.ply"));
        std::fs::write(path, mesh(shift)).expect("a file");
    }
    space.write("r.yaml", &[OUT, CAMERAS].concat());
    space.write("in.yaml", &[IN, CAMERAS].concat());
    space.settle();
    space.run();
    let stages = ["pictures", "description", "tracking", "flame"];
    let said = space.effigy(&[&["export", "r.yaml"], &stages[..], &["--to", "data", "--json"]].concat());
    // two cameras of two frames, five pictures each; two JSON files; three files of each frame; one of the sequence
    assert_eq!((said.code, said.json()["copied"].as_u64()), (0, Some(20 + 2 + 6 + 1)), "{}", said.err);
    space.settle();
    space
}

fn rows(space: &Space, recipe: &str, stage: &str) -> Vec<serde_json::Value> {
    let said = space.effigy(&["show", recipe, stage, "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
}

#[test]
fn what_goes_out_comes_in_again() {
    let space = start();
    let said = space.effigy(&["run", "in.yaml"]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    let (made, read) = (rows(&space, "r.yaml", "gbuffers"), rows(&space, "in.yaml", "gbuffers"));
    assert_eq!((made.len(), read.len()), (4, 4));
    for row in &read {
        let same = |other: &&serde_json::Value| ["camera", "timestep"].iter().all(|name| other[*name] == row[*name]);
        let twin = made.iter().find(same).expect("it was drawn here, too");
        for column in ["participant", "sequence", "crop", "crop_rect", "gbuffer"] {
            assert_eq!(row[column], twin[column], "{column} of {}, {}", row["camera"], row["timestep"]);
        }
    }
    let codes = rows(&space, "in.yaml", "codes");
    let codes: Vec<_> = codes.iter().map(|row| (row["timestep"].as_i64(), row["expression"].to_string())).collect();
    assert_eq!(codes, [(Some(0), "[0.25,-1.0]".into()), (Some(3), "[0.5,2.0]".into())]);
    let folder = "data/nersemble/018/sequences/EMO-1-shout+laugh/annotations/tracking/NPHM_temp_wNeck";
    assert!(space.path(&format!("{folder}/00003_local_new.CTM")).is_file());

    // the reference reads eyes, and the way of meshes to the world, from the tracking that the description names
    let config: serde_json::Value =
        serde_json::from_str(&space.read("data/rendering_data/v1.0-test/config.json")).expect("JSON");
    assert_eq!(config["mesh_provider_config"]["flame_tracking"], "FLAME_2023_V2");
    let flame = rows(&space, "in.yaml", "flame");
    assert_eq!(flame.iter().map(|row| row["timestep"].as_i64()).collect::<Vec<_>>(), [Some(0), Some(3)]);
    for (row, gaze) in flame.iter().zip([0.25, 0.5]) {
        assert_eq!((row["participant"].as_i64(), row["flame_scale"].as_f64()), (Some(18), Some(1.0)));
        assert_eq!(row["eyes"], serde_json::json!([0.0, gaze, 0.0, 0.0, gaze, 0.0]));
        assert_eq!(row["flame_shape"].as_array().map(Vec::len), Some(300));
        assert!(floats(&row["flame_rotation"]).iter().zip([0.0, 0.5, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{row}");
    }
    // and by it meshes come back to where they were
    let shown = space.effigy(&["show", "in.yaml", "fits", "--json", "--paths"]);
    let fits: Vec<serde_json::Value> =
        shown.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    assert_eq!(fits.len(), 2);
    for (row, shift) in fits.iter().zip([0.0, 0.03]) {
        let back = std::fs::read(row["mesh"].as_str().expect("a path")).expect("a mesh");
        let (back, made) = (positions(&back), positions(&mesh(shift)));
        assert_eq!(back.len(), 27);
        assert!(back.iter().zip(&made).all(|(a, b)| (a - b).abs() < 1e-5), "{back:?} is not {made:?}");
    }
    // a frame whose mesh lacks its canonical coordinates has none, is told, and keeps its code
    std::fs::remove_file(space.path(&format!("{folder}/00003_canonical_vertices_uint16.npz"))).expect("it is there");
    space.settle();
    let said = space.effigy(&["run", "in.yaml"]);
    assert!(said.code == 0 && said.err.contains("none with canonical coordinates"), "{}", said.err);
    let fits = rows(&space, "in.yaml", "fits");
    assert_eq!(fits.iter().map(|row| row["mesh"].is_null()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(rows(&space, "in.yaml", "codes").len(), 2);
}

fn floats(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// The places of the nine vertices of a mesh, which begin each vertex of a file like those above.
fn positions(file: &[u8]) -> Vec<f32> {
    let end = b"end_header\n";
    let start = file.windows(end.len()).position(|window| window == end).expect("a header") + end.len();
    let vertex = |at: usize| &file[start + 32 * at..start + 32 * at + 12];
    let places = (0..9).flat_map(|at| vertex(at).as_chunks::<4>().0);
    places.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn a_folder_that_is_not_whole_is_named() {
    let space = start();
    let run = |expected: &[&str]| -> Said {
        space.settle();
        let said = space.effigy(&["run", "in.yaml", "--only", "gbuffers"]);
        let all = [said.out.as_str(), said.err.as_str()].concat();
        assert!(said.code == 1 && expected.iter().all(|part| all.contains(part)), "{all}");
        said
    };
    let stats = "data/rendering_data/v1.0-test/stats.json";
    let text = space.read(stats);
    space.write(stats, &text.replace("\"total_n_frames\": 4", "\"total_n_frames\": 32"));
    run(&["stats.json, field `total_n_frames`: found 32, expected 4", "hint"]);
    space.write(stats, &text);
    let uv = "data/rendering_data/v1.0-test/018/EMO-1-shout+laugh/cam_222200037/uv/frame_00003.png";
    let whole = std::fs::read(space.path(uv)).expect("it was exported");
    std::fs::write(space.path(uv), &whole[..whole.len() / 2]).expect("it is ours");
    run(&["expected a whole PNG", "hint"]);
    std::fs::remove_file(space.path(uv)).expect("it is there");
    run(&["uv/frame_00003.png: found no such file", "partial: true"]);
    space.settle();
    let said = space.effigy(&["run", "in.yaml", "--set", "pictures.partial=true"]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert_eq!(rows(&space, "in.yaml", "gbuffers").len(), 3);
}
