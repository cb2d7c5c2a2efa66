//! G-buffer pictures against a decoder written here, files that are damaged, and folders that say other than they hold.

use super::config::{Config, MeshProvider, SequenceSteps, Stats};
use super::*;
use std::io::Read;

/// What a PNG file holds, decoded with nothing but its specification and inflate: width, height, bit depth, colour
/// type, and the bytes of the samples.
fn by_hand(file: &[u8]) -> (u32, u32, u8, u8, Vec<u8>) {
    assert_eq!(file[..8], *b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut header, mut packed) = (8, Vec::new(), Vec::new());
    while at < file.len() {
        let body = &file[at + 8..at + 8 + number(at) as usize];
        match &file[at + 4..at + 8] {
            b"IHDR" => header = body.to_vec(),
            b"IDAT" => packed.extend_from_slice(body),
            _ => {}
        }
        at += 12 + body.len();
    }
    let (width, height) = (number(16), number(20));
    let (depth, color) = (header[8], header[9]);
    assert_eq!(header[10..], [0, 0, 0], "deflate, no interlacing");
    let mut raw = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut raw).unwrap();
    let pixel = usize::from(depth / 8) * if color == 2 { 3 } else { 1 };
    let line = width as usize * pixel;
    let mut out: Vec<u8> = Vec::new();
    for (y, row) in raw.chunks(line + 1).enumerate() {
        for x in 0..line {
            let behind = out.len();
            let left = if x >= pixel { out[behind - pixel] } else { 0 };
            let up = if y > 0 { out[behind - line] } else { 0 };
            let corner = if x >= pixel && y > 0 { out[behind - line - pixel] } else { 0 };
            let (a, b, c) = (i32::from(left), i32::from(up), i32::from(corner));
            let p = a + b - c;
            let paeth = [a, b, c].into_iter().min_by_key(|v| (p - v).abs()).unwrap();
            let guess = [0, a, b, (a + b) / 2, paeth][usize::from(row[0])];
            out.push(row[1 + x].wrapping_add(guess as u8));
        }
    }
    (width, height, depth, color, out)
}

/// Every picture full of numbers that differ in both bytes.
fn buffer(width: u32, height: u32) -> EncodedGBuffer {
    let n = (width * height) as usize;
    let word = |i: usize| (i * 40503 + 7) as u16;
    let byte = |i: usize| (i * 167 + 3) as u8;
    EncodedGBuffer {
        width,
        height,
        depths: (0..n).map(word).collect(),
        uv: (0..n).map(|i| [word(3 * i), word(3 * i + 1), word(3 * i + 2)]).collect(),
        normals: (0..n).map(|i| [255, byte(i), byte(i + 9)]).collect(),
        uv_ambient: (0..n).map(|i| [byte(i), byte(2 * i), 0]).collect(),
        mask: (0..n).map(|i| if i % 3 == 0 { 255 } else { 0 }).collect(),
    }
}

fn frame(timestep: u32) -> Frame {
    Frame { participant: 18, sequence: "EMO-1-shout+laugh".into(), camera: "222200037".into(), timestep }
}

fn config() -> Config {
    Config {
        name: Some("ID-18-nphm".into()),
        downscale_factor: 2,
        sequences: vec![(18, "EMO-1-shout+laugh".into())],
        n_timesteps: -1,
        use_mipmapping: false,
        use_antialiasing: false,
        use_ambient_dimensions: true,
        use_nphm: true,
        mesh_provider_config: MeshProvider { cut_throat: true, cut_throat_margin: -0.05, ..MeshProvider::default() },
        serials: vec!["222200037".into()],
    }
}

fn stats(timesteps: &[u32]) -> Stats {
    let steps = SequenceSteps { participant: 18, sequence: "EMO-1-shout+laugh".into(), timesteps: timesteps.to_vec() };
    Stats::of(vec![steps], 1)
}

/// A whole folder of two frames.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for t in [0, 3] {
        write(root.path(), &frame(t), &buffer(5, 4)).unwrap();
    }
    config().write(&root.path().join("config.json")).unwrap();
    stats(&[0, 3]).write(&root.path().join("stats.json")).unwrap();
    root
}

#[test]
fn pictures_decode_to_the_same_integers_elsewhere() {
    let buffer = buffer(7, 5);
    let files = encode(&buffer);
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    // width, height, bits, colour type (0 grey, 2 RGB), samples: the highest byte first, red first
    assert_eq!(by_hand(&files[0]), (7, 5, 16, 0, words(&buffer.depths)));
    assert_eq!(by_hand(&files[1]), (7, 5, 16, 2, words(buffer.uv.as_flattened())));
    assert_eq!(by_hand(&files[2]), (7, 5, 8, 2, buffer.normals.as_flattened().to_vec()));
    assert_eq!(by_hand(&files[3]), (7, 5, 8, 2, buffer.uv_ambient.as_flattened().to_vec()));
    assert_eq!(by_hand(&files[4]), (7, 5, 8, 0, buffer.mask.clone()));
}

#[test]
fn what_is_written_is_read_back() {
    let root = folder();
    let path = root.path().join("018/EMO-1-shout+laugh/cam_222200037/uv_ambient/frame_00003.png");
    assert!(path.is_file());
    assert_eq!(read(&frame(3).paths(root.path())).unwrap(), buffer(5, 4));
    let (read_config, read_stats, listing) = open(root.path()).unwrap();
    assert_eq!((read_config, read_stats), (config(), stats(&[0, 3])));
    assert_eq!(listing, Listing { whole: vec![frame(0), frame(3)], missing: vec![] });
    let version = Version { major: 1, minor: 1, name: Some("ID-18-nphm".into()) };
    assert_eq!(version.folder(), "rendering_data/v1.1-ID-18-nphm");
    assert_eq!(Version { name: None, ..version }.folder(), "rendering_data/v1.1");
}

/// The text of both files as Python's `json.dump(..., indent=4)` gives it.
#[test]
fn json_files_look_as_the_reference_writes_them() {
    let head = "{\n    \"name\": \"ID-18-nphm\",\n    \"downscale_factor\": 2,\n    \"sequences\": [\n        [\n            18,\n";
    assert!(config().text().starts_with(head), "{}", config().text());
    assert!(config().text().contains("        \"cut_throat_margin\": -0.05\n    },\n    \"serials\": ["));
    let expected = r#"{
    "total_n_timesteps": 2,
    "total_n_frames": 2,
    "available_timesteps": [
        [
            0,
            3
        ]
    ],
    "available_sequences": {
        "18": {
            "EMO-1-shout+laugh": [
                0,
                3
            ]
        }
    }
}"#;
    assert_eq!(stats(&[0, 3]).text(), expected);
}

#[test]
fn fields_with_a_default_may_be_missing() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("config.json");
    std::fs::write(&place, r#"{"name": null, "downscale_factor": 2, "sequences": [[18, "FREE"]]}"#).unwrap();
    let read = Config::read(&place).unwrap();
    // of the serials the reference's default is all sixteen
    assert_eq!((read.serials.len(), read.serials[8].as_str()), (16, "222200037"));
    assert_eq!(read.mesh_provider_config, MeshProvider::default());
    std::fs::write(&place, r#"{"name": null, "sequences": []}"#).unwrap();
    let error = Config::read(&place).unwrap_err().to_string();
    assert!(error.contains("field `downscale_factor`: found nothing"), "{error}");
}

#[test]
fn damaged_pictures_are_named() {
    let root = folder();
    let paths = frame(0).paths(root.path());
    let check = |what: &str, expected: &[&str]| {
        let error = read(&paths).unwrap_err();
        let text = error.to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "{what}: {text}");
        assert!(!error.hint().is_empty());
    };
    let whole = std::fs::read(&paths[1]).unwrap();
    for keep in [0, 4, 20, whole.len() / 2, whole.len() - 20] {
        std::fs::write(&paths[1], &whole[..keep]).unwrap();
        check("truncated", &["uv/frame_00000.png", "(file)", &format!("found {keep} bytes"), "expected a whole PNG"]);
    }
    // the very picture, saved with 8 bits
    let eight = Picture::of_u8(5, 4, 3, vec![1; 60]).encode();
    std::fs::write(&paths[1], &eight).unwrap();
    check("8 bits", &["uv/frame_00000.png", "bit depth", "found 8 bits, 3 channels", "expected 16 bits, 3 channels"]);
    std::fs::write(&paths[1], Picture::of_u16(5, 4, 1, vec![1; 20]).encode()).unwrap();
    check("grey", &["found 16 bits, 1 channel,", "expected 16 bits, 3 channels"]);
    std::fs::write(&paths[1], Picture::of_u16(4, 5, 3, vec![1; 60]).encode()).unwrap();
    check(
        "size",
        &["uv/frame_00000.png", "width, height", "found 4 x 5", "expected 5 x 4, as in", "depths/frame_00000.png"],
    );
    std::fs::remove_file(&paths[1]).unwrap();
    check("missing", &["uv/frame_00000.png", "No such file"]);
}

#[test]
fn folders_that_disagree_with_their_statistics_are_named() {
    let root = folder();
    let check = |expected: &[&str]| {
        let error = open(root.path()).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    let place = root.path().join("stats.json");
    stats(&[0]).write(&place).unwrap();
    check(&["stats.json", "`available_sequences.18.EMO-1-shout+laugh`", "found no timestep 3 of camera 222200037"]);
    let text = stats(&[0, 3]).text();
    let spoil = |from: &str, to: &str| std::fs::write(&place, text.replacen(from, to, 1)).unwrap();
    spoil("\"total_n_frames\": 2", "\"total_n_frames\": 32");
    check(&["`total_n_frames`: found 32, expected 2, counted"]);
    spoil("            3\n", "            6\n");
    check(&["`available_timesteps`: found 1 lists with 2 timesteps"]);
    spoil("\"18\"", "\"eighteen\"");
    check(&["`available_sequences.eighteen`: found the name `eighteen`"]);
    spoil("\"total_n_timesteps\": 2", "\"total_n_timesteps\": -2");
    check(&["`total_n_timesteps`: found the number -2, expected an integer from 0"]);
    spoil("EMO-1-shout+laugh", "FREE");
    check(&[
        "`available_sequences.18.EMO-1-shout+laugh`: found no such sequence, expected such sequence, as in config.json",
    ]);
    spoil("}", "");
    check(&["stats.json: found text that is not JSON"]);
    stats(&[0, 3, 6]).write(&place).unwrap();
    let listing = open(root.path()).unwrap().2;
    assert_eq!(listing.missing, frame(6).paths(root.path()));
    let error = missing_files(&listing.missing).unwrap();
    assert!(error.to_string().contains("depths/frame_00006.png: found no such file, nor 4 others"));
    std::fs::remove_file(&place).unwrap();
    check(&["stats.json", "No such file"]);
    assert!(list(&root.path().join("v9.9")).unwrap_err().to_string().contains("v9.9"));
    let config = config().text().replace("\"downscale_factor\": 2", "\"downscale_factor\": 0.5");
    std::fs::write(root.path().join("config.json"), config).unwrap();
    check(&["config.json, field `downscale_factor`: found the number 0.5, expected an integer from 1"]);
}
