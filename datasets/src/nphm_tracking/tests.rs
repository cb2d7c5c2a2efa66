//! The three kinds of files of NPHM tracking: written and read back, read from files of other programs, damaged.

use super::*;
use geometry::quantize::VERTEX_CANONICAL;
use std::path::PathBuf;

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The mesh below as `ctmconv --method MG1` of openctm-tools 1.0.3 wrote it.
const MG1: &str = concat!(
    "4f43544d050000004d473100050000000500000000000000000000000000000000000000494e4458110000005d0000010000",
    "006e384898180f07d18932bc410bd00056455254180000005d000001000000680e44cdf0061d9c1d9cadf2e372cf0c7fcf71",
    "900000",
);
/// The same as RAW, with the comment `hi`.
const RAW: &str = concat!(
    "4f43544d05000000524157000500000005000000000000000000000000000000020000006869494e44580000000002000000",
    "0100000000000000010000000300000001000000020000000300000000000000030000000200000004000000010000000200",
    "0000564552540000000000000000000000000000803f0000000000000000000000000000c03f000000000000000000000000",
    "000010c00000003e0000803f00000040",
);

fn mesh() -> Mesh {
    let positions = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, -2.25], [0.125, 1.0, 2.0]];
    Mesh {
        positions: positions.map(glam::Vec3::from_array).to_vec(),
        faces: vec![[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2], [4, 1, 2]],
    }
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    (root, path)
}

fn check(result: Result<impl std::fmt::Debug, Fault>, expected: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    assert!(!error.hint().is_empty());
}

#[test]
fn meshes_of_the_openctm_library_are_read() {
    let (_root, path) = scratch();
    std::fs::write(&path, hex(RAW)).unwrap();
    assert_eq!(ctm::read(&path).unwrap(), mesh());
    std::fs::write(&path, hex(MG1)).unwrap();
    let read = ctm::read(&path).unwrap();
    assert_eq!(read.positions, mesh().positions, "vertices stay in their order, bit for bit");
    // each triangle begins with its lowest vertex, and they are sorted
    assert_eq!(read.faces, [[0, 1, 3], [0, 2, 1], [0, 3, 2], [1, 2, 3], [1, 2, 4]]);
    // what the library wrote without its comment is what is written here
    let mut expected = hex(RAW);
    expected[32..36].fill(0);
    expected.drain(36..38);
    assert_eq!(ctm::pack(&mesh()), expected);
    ctm::write(&path, &mesh()).unwrap();
    assert_eq!(ctm::read(&path).unwrap(), mesh());
}

#[test]
fn damaged_meshes_are_named() {
    let (_root, path) = scratch();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        ctm::read(&path)
    };
    for whole in [hex(RAW), hex(MG1)] {
        for keep in 0..whole.len() - 4 {
            check(read(&whole[..keep]), &["file, field `", "found ", "expected "]);
        }
    }
    let spoil = |at: usize, byte: u8| {
        let mut bytes = hex(RAW);
        bytes[at] = byte;
        bytes
    };
    check(read(&spoil(0, b'P')), &["`magic`: found `PCTM`, expected `OCTM`"]);
    check(read(&spoil(4, 6)), &["`version`: found 6, expected 5"]);
    check(read(&spoil(15, 0x7f)), &["`vertex count, triangle count`: found 2130706437, expected at most"]);
    check(read(&spoil(42, 9)), &["`INDX`: found triangle 0 of the vertices [9, 2, 1], expected indices below 5"]);
}

#[test]
fn a_mesh_in_another_order_of_vertices_is_refused() {
    let (_root, path) = scratch();
    let mut bytes = hex(MG1);
    bytes[10] = b'2';
    std::fs::write(&path, bytes).unwrap();
    check(ctm::read(&path), &["`method`: found `MG2`, expected RAW or MG1"]);
}

#[test]
fn codes_and_canonical_coordinates_are_written_and_read_back() {
    let (_root, path) = scratch();
    for width in [200, 16] {
        let code: Vec<f32> = (0..width).map(|i| (i as f32 - 50.5) * 0.013).collect();
        write_expression(&path, &code).unwrap();
        assert_eq!(read_expression(&path).unwrap(), code);
    }
    let bins = [[0, 1, 32768, 65534, 65535], [5, 4, 3, 2, 1]];
    let canonical = VERTEX_CANONICAL.decode(&bins);
    write_canonical(&path, &canonical).unwrap();
    let (shape, read) = npz::read::<u16>(&path).unwrap();
    assert_eq!((shape, read), (vec![2, 5], bins.as_flattened().to_vec()));
    assert_eq!(read_canonical(&path, 2).unwrap(), canonical);
    check(read_canonical(&path, 3), &["`arr_0`: found shape [2, 5], expected [3, 5]"]);
    check(read_expression(&path), &["`arr_0`: found the type '<u2', expected the type '<f4'"]);
    let error = write_canonical(&path, &[[0.0, 1.5, 0.0, 0.0, 0.0]]).unwrap_err().to_string();
    assert!(error.contains("channel 1 is above 1"), "{error}");
}

/// The header that numpy writes: a version, a literal of Python, padded with blanks to a multiple of 64 bytes.
#[test]
fn the_array_begins_as_numpy_writes_it() {
    let file = npz::pack(&[2], &[1.0f32, -2.0]);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(file)).unwrap();
    let mut npy = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name("arr_0.npy").unwrap(), &mut npy).unwrap();
    assert_eq!(npy[..8], *b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header: String = String::from_utf8(npy[10..10 + length].to_vec()).unwrap().split_whitespace().collect();
    assert_eq!(header.replace(",}", "}"), "{'descr':'<f4','fortran_order':False,'shape':(2,)}");
    assert_eq!(npy[10 + length..], [0, 0, 128, 63, 0, 0, 0, 192]);
}

/// As numpy leaves an array that was transposed before it was saved: columns lie one after the other.
#[test]
fn arrays_in_fortran_order_are_read() {
    let (_root, path) = scratch();
    let mut header = "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 5), }".to_string();
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let bins: [[u16; 5]; 2] = [[0, 1, 32768, 65534, 65535], [5, 4, 3, 2, 1]];
    let columns = (0..5).flat_map(|column| bins.map(|row| row[column])).flat_map(u16::to_le_bytes);
    let length = (header.len() as u16).to_le_bytes();
    let npy = [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), &columns.collect::<Vec<u8>>()].concat();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file("arr_0.npy", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, &npy).unwrap();
    zip.finish().unwrap();
    assert_eq!(read_canonical(&path, 2).unwrap(), VERTEX_CANONICAL.decode(&bins));
}

#[test]
fn damaged_arrays_are_named() {
    let (_root, path) = scratch();
    let whole = npz::pack(&[3], &[1.0f32, f32::NAN, 2.0]);
    for keep in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        check(read_expression(&path), &["`(file)`: found", "expected a whole npz file"]);
    }
    std::fs::write(&path, &whole).unwrap();
    check(read_expression(&path), &["`arr_0[1]`: found NaN, expected a finite number"]);
    std::fs::write(&path, npz::pack(&[1, 2], &[1.0f32, 2.0])).unwrap();
    check(read_expression(&path), &["`arr_0`: found shape [1, 2], expected [N]"]);
}

#[test]
fn files_lie_where_the_reference_looks_for_them() {
    let frame = Tracked { participant: 18, sequence: "EMO-1-shout+laugh".into(), timestep: 3 };
    let folder = "nersemble/018/sequences/EMO-1-shout+laugh/annotations/tracking/NPHM_temp_wNeck";
    assert_eq!(frame.mesh(), format!("{folder}/00003_local_new.CTM"));
    assert_eq!(frame.canonical(), format!("{folder}/00003_canonical_vertices_uint16.npz"));
    let other = Tracked { participant: 124, ..frame };
    assert_eq!(
        flame_path(18, "FREE"),
        "nersemble/018/sequences/FREE/annotations/tracking/FLAME2023_v2/tracked_flame_params.npz"
    );
    assert!(
        other.expression().contains("/124/") && other.expression().ends_with("NPHM_temp_wNeck_wLMs/00003_ex_code.npz")
    );
}

#[test]
fn tracked_frames_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let error = list(root.path()).unwrap_err().to_string();
    assert!(error.contains("nersemble") && error.contains("No such file"), "{error}");
    std::fs::create_dir_all(root.path().join("nersemble/018/calibration")).unwrap();
    check(list(root.path()), &["nersemble, field `(folder)`: found no expression code", "{t:05}_ex_code.npz"]);
    let frames = [(18, "FREE", 3), (18, "FREE", 12), (124, "EXP-1-head", 0)]
        .map(|(participant, sequence, timestep)| Tracked { participant, sequence: sequence.into(), timestep });
    for frame in frames.iter().rev() {
        write_expression(&root.path().join(frame.expression()), &[0.5; 4]).unwrap();
    }
    assert_eq!(list(root.path()).unwrap(), frames);
}
