//! Checkpoints as PyTorch left them, and as nobody would: cut, bent, compressed, too large, and armed.

use super::*;
use std::path::PathBuf;

/// What a checkpoint is made of; written as `torch.save` writes it.
pub(crate) enum Item<'t> {
    Dict(Vec<(&'t str, Item<'t>)>),
    /// A state dict: names in order.
    Tensors(Vec<(String, &'t Tensor)>),
    Int(u8),
}

/// The bytes of a checkpoint, in the layout of PyTorch 1.6 and later.
pub(crate) fn pack(root: &Item<'_>) -> Vec<u8> {
    let (mut pickle, mut storages) = (b"\x80\x02".to_vec(), Vec::new());
    write(root, &mut pickle, &mut storages);
    pickle.push(b'.');
    container(&pickle, storages, false)
}

fn container(pickle: &[u8], storages: Vec<Vec<u8>>, compressed: bool) -> Vec<u8> {
    let mut entries = vec![("archive/data.pkl".to_owned(), pickle.to_vec())];
    entries.extend(storages.into_iter().enumerate().map(|(i, bytes)| (format!("archive/data/{i}"), bytes)));
    entries.push(("archive/version".to_owned(), b"3\n".to_vec()));
    archive::pack(&entries, compressed)
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(n: i64, out: &mut Vec<u8>) {
    out.push(b'J');
    out.extend((n as i32).to_le_bytes());
}

fn write(item: &Item<'_>, out: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>) {
    match item {
        Item::Int(n) => out.extend([b'K', *n]),
        Item::Dict(entries) => {
            out.extend(b"}(");
            for (name, item) in entries {
                text(name, out);
                write(item, out, storages);
            }
            out.push(b'u');
        }
        Item::Tensors(tensors) => {
            out.extend(b"ccollections\nOrderedDict\n)R(");
            for (name, tensor) in tensors {
                text(name, out);
                let storage = match tensor.kind() {
                    Kind::Float => "FloatStorage",
                    Kind::Double => "DoubleStorage",
                    Kind::Int64 => "LongStorage",
                    other => panic!("no test writes {other:?}"),
                };
                let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
                tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
                out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
                text("storage", out);
                out.extend(format!("ctorch\n{storage}\n").as_bytes());
                text(&storages.len().to_string(), out);
                text("cpu", out);
                int(tensor.numel() as i64, out);
                out.extend(b"tQK\0(");
                tensor.size().iter().for_each(|side| int(*side, out));
                out.extend(b"t(");
                tensor.contiguous().stride().iter().for_each(|step| int(*step, out));
                out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
                storages.push(bytes);
            }
            out.push(b'u');
        }
    }
}

/// A file with a name of its own, removed with the value.
pub(crate) struct Kept(pub PathBuf);

impl Kept {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("effigy-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn error(name: &str, bytes: &[u8]) -> String {
    let file = Kept::new(name, bytes);
    read(&file.0).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn what_pytorch_wrote_comes_out_of_every_layout_and_type() {
    let all = read(&fixture("torch.tar")).unwrap();
    let check = |name: &str, shape: &[i64], expected: &[f64]| {
        let tensor = all.get(name).unwrap_or_else(|| panic!("{name} is not in {:?}", all.keys()));
        assert_eq!((tensor.size().as_slice(), values(tensor).as_slice()), (shape, expected), "{name}");
    };
    check("decoder_state_dict.0.weight", &[2, 3], &[0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
    check("decoder_state_dict.2.bias", &[1], &[0.5]);
    check("codes.weight", &[4], &[0.0, 1.0, 2.0, 3.0]);
    check("views.row", &[6], &[6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    check("views.block", &[2, 3], &[8.0, 9.0, 10.0, 14.0, 15.0, 16.0]);
    let columns: Vec<f64> = (0..6).flat_map(|i| (0..4).map(move |j| f64::from(6 * j + i))).collect();
    check("views.transposed", &[6, 4], &columns);
    check("views.expanded", &[2, 3], &[3.0; 6]);
    check("views.scalar", &[], &[2.5]);
    check("views.empty", &[0, 3], &[]);
    check("views.parameter", &[2], &[1.0, -1.0]);
    check("list.1", &[1], &[2.0]);
    for (name, kind) in [
        ("float64", Kind::Double),
        ("float32", Kind::Float),
        ("float16", Kind::Half),
        ("bfloat16", Kind::BFloat16),
        ("int64", Kind::Int64),
        ("int32", Kind::Int),
        ("int16", Kind::Int16),
        ("int8", Kind::Int8),
        ("uint8", Kind::Uint8),
    ] {
        check(&format!("types.{name}"), &[3], &[0.0, 1.0, 2.0]);
        assert_eq!(all[&format!("types.{name}")].kind(), kind);
    }
    check("types.bool", &[3], &[0.0, 1.0, 1.0]);
    // the moments of Adam, and nothing that is no tensor
    assert!(all.contains_key("optimizer.state.0.exp_avg") && !all.contains_key("mean"));

    let some = read_where(&fixture("torch.tar"), |name| name.starts_with("decoder")).unwrap();
    assert_eq!((some.tensors.len(), some.left.len() + 4), (4, all.len()));
}

#[test]
fn a_folder_of_a_diffusers_model_may_hold_a_checkpoint() {
    let folder = golden("models/vae");
    let expected = crate::weights::read(&folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    let dir = std::env::temp_dir().join(format!("effigy-{}-vae", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(folder.join("config.json"), dir.join("config.json")).unwrap();
    let tensors = expected.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
    std::fs::write(dir.join("diffusion_pytorch_model.bin"), pack(&Item::Tensors(tensors))).unwrap();

    let found = crate::weights::ModelFolder::open(&dir).unwrap();
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let config = crate::vae::VaeConfig::from_json(&found.config, "config.json").unwrap();
    let _vae = crate::vae::Vae::new(&vs.root(), &config);
    crate::weights::load(&vs, &found.weights).unwrap();
    let loaded = crate::weights::sorted(&vs);
    assert_eq!(loaded.len(), expected.len());
    loaded.iter().for_each(|(name, tensor)| assert_eq!(*tensor, expected[name], "{name}"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_format_before_1_6_is_named() {
    let error = crate::weights::read(&fixture("torch_before_1_6.tar")).unwrap_err().to_string();
    assert!(error.contains("PyTorch 1.6"), "{error}");
}

#[test]
fn nothing_is_executed_and_what_was_asked_for_is_named() {
    let marker = std::env::temp_dir().join(format!("effigy-{}-executed", std::process::id()));
    let command = format!("touch {}", marker.display());
    let mut armed = b"\x80\x02cposix\nsystem\n".to_vec();
    text(&command, &mut armed);
    armed.extend(b"\x85R.");
    let said = error("armed", &container(&armed, vec![], false));
    assert!(said.contains("posix.system") && said.contains("hint:"), "{said}");
    assert!(!marker.exists());
}

#[test]
fn damaged_and_dishonest_files_are_refused() {
    let tensor = Tensor::arange(6, (Kind::Float, tch::Device::Cpu)).reshape([2, 3]);
    let sound = pack(&Item::Tensors(vec![("a".into(), &tensor)]));
    assert_eq!(error("sound", &sound), "");
    for cut in [4, 30, sound.len() / 2, sound.len() - 1] {
        assert!(!error("cut", &sound[..cut]).is_empty(), "{cut}");
    }
    // a bit of a number: the zip file's checksum tells
    let mut bent = sound.clone();
    let at = bent.windows(4).position(|w| w == 5f32.to_le_bytes()).unwrap();
    bent[at] ^= 1;
    assert!(error("bent", &bent).contains("damaged"), "{}", error("bent", &bent));

    let (mut pickle, mut storages) = (b"\x80\x02".to_vec(), Vec::new());
    write(&Item::Tensors(vec![("a".into(), &tensor)]), &mut pickle, &mut storages);
    pickle.push(b'.');
    let with = |storages: Vec<Vec<u8>>, compressed| error("with", &container(&pickle, storages, compressed));
    assert!(with(vec![vec![0; 20]], false).contains("20 bytes for 6 numbers"), "{}", with(vec![vec![0; 20]], false));
    assert!(with(vec![], false).contains("archive/data/0"), "{}", with(vec![], false));
    // zeros pack a thousandfold; such files are not packed
    assert!(with(vec![vec![0; 24]], true).contains("compressed"), "{}", with(vec![vec![0; 24]], true));
    let replaced = |from: &[u8], to: &[u8]| {
        let at = pickle.windows(from.len()).position(|w| w == from).unwrap();
        [&pickle[..at], to, &pickle[at + from.len()..]].concat()
    };
    let said = error("type", &container(&replaced(b"FloatStorage", b"ComplexFloatStorage"), storages.clone(), false));
    assert!(said.contains("torch.ComplexFloatStorage"), "{said}");
    let said = error("double", &container(&replaced(b"FloatStorage", b"DoubleStorage"), storages.clone(), false));
    assert!(said.contains("24 bytes for 6 numbers of Double"), "{said}");
    let said = error("none", &container(b"\x80\x02}.", vec![], false));
    assert!(said.contains("holds no tensor"), "{said}");

    // one number, stretched to terabytes
    let mut huge = b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    text("storage", &mut huge);
    huge.extend(b"ctorch\nFloatStorage\n");
    text("0", &mut huge);
    text("cpu", &mut huge);
    huge.extend(b"K\x01tQK\0(J\0\0\0\x40J\0\0\0\x40t(K\0K\0t\x89}tRs.");
    let said = error("huge", &container(&huge, vec![vec![0; 4]], false));
    assert!(said.contains("larger than a file"), "{said}");
    // a dictionary in itself
    let said = error("cycle", &container(b"\x80\x02}q\0X\x01\0\0\0ah\0s.", vec![], false));
    assert!(said.contains("nested more than"), "{said}");
    // 2 to the 30 entries in 200 bytes
    let mut many = b"\x80\x02]".to_vec();
    for slot in 0..30 {
        many.extend([b'q', slot, b'0', b']', b'(', b'h', slot, b'h', slot, b'e']);
    }
    many.push(b'.');
    let said = error("many", &container(&many, vec![], false));
    assert!(said.contains("more than") && said.contains("entries"), "{said}");
}

#[test]
fn no_bent_pickle_makes_it_panic() {
    // sound ones, bent by draws that are the same each time
    let mut archive = archive::Archive::open(&fixture("torch.tar")).unwrap();
    let seeds = [
        (archive.read("torch/data.pkl", 1 << 20, true).unwrap(), Dialect::Torch),
        (std::fs::read(fixture("linear_protocol_2.pkl")).unwrap(), Dialect::BodyModel),
        (std::fs::read(fixture("linear_protocol_4.pkl")).unwrap(), Dialect::BodyModel),
    ];
    let mut state = 1u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let (mut read, mut refused) = (0, 0);
    for round in 0..30_000 {
        let (seed, dialect) = &seeds[round % seeds.len()];
        let mut bytes = seed.clone();
        for _ in 0..1 + draw(4) {
            // mostly within the first instructions, where the names are
            let within = [200, bytes.len()][draw(2)].min(bytes.len());
            let at = draw(within);
            match draw(4) {
                0 => bytes[at] = draw(256) as u8,
                1 => bytes[at] ^= 1 << draw(8),
                2 => _ = bytes.drain(at..(at + 1 + draw(20)).min(bytes.len())),
                _ => {
                    let from = draw(seed.len() - 20);
                    bytes.splice(at..at, seed[from..from + 1 + draw(19)].iter().copied());
                }
            }
            bytes.push(b'.');
        }
        match Pickle::read(&bytes, *dialect) {
            Ok(pickle) => {
                read += 1;
                let (mut visited, mut found) = (0, Vec::new());
                let _ = flatten(&pickle, pickle.root(), "", 0, &mut visited, &mut found);
                for (_, value) in pickle.entries(pickle.root()).unwrap_or_default() {
                    let _ = pickle.numbers(*value);
                }
            }
            Err(_) => refused += 1,
        }
    }
    // draws that reach nothing find nothing
    assert!(read > 1000 && refused > 1000, "{read} {refused}");
}
