//! Published layouts made of the reference cases' weights: what is loaded computes what the same weights compute by
//! themselves.

use super::*;
use crate::checkpoint::tests::{Item, Kept, golden, pack};
use crate::init;
use crate::nphm::Far;
use crate::weights::{self, Precision};

fn weights_of(case: &str) -> Tensors {
    weights::read(&golden(&format!("nphm/{case}/weights.safetensors"))).unwrap()
}

fn anchors_of(case: &str) -> Tensor {
    weights::read(&golden(&format!("nphm/{case}/io.safetensors"))).unwrap().remove("in.mean_anchors").unwrap()
}

fn state<'t>(tensors: &'t Tensors) -> Item<'t> {
    Item::Tensors(tensors.iter().map(|(name, t)| (name.clone(), t)).collect())
}

/// Both checkpoints of NPHM, or the one of MonoNPHM, as they are published, with random codes and an optimiser's state.
fn nphm_files(id: &Tensors, ex: &Tensors, codes: [&Tensors; 2]) -> [Vec<u8>; 2] {
    let moments = Tensors::from([("state".into(), Tensor::ones([3], (Kind::Float, Device::Cpu)))]);
    let file = |net, codes| {
        pack(&Item::Dict(vec![
            ("epoch", Item::Int(15)),
            ("decoder_state_dict", state(net)),
            ("optimizer_encoder_state_dict", state(&moments)),
            ("latent_codes_state_dict", state(codes)),
            ("latent_codes_val_state_dict", state(codes)),
        ]))
    };
    [file(id, codes[0]), file(ex, codes[1])]
}

fn code(seed: u64, width: i64) -> Tensors {
    Tensors::from([("weight".into(), init::normal(seed, 0, &[4, width]))])
}

/// The same weights, put into a model of the given dimensions by hand.
fn by_hand(config: &HeadConfig, anchors: &Tensor, id: &Tensors, ex: &Tensors) -> HeadModel {
    let mut model = HeadModel::new(config, anchors, Device::Cpu).unwrap();
    let named = |prefix: &str, tensors: &Tensors| -> Tensors {
        tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t.shallow_clone())).collect()
    };
    let mut all = named("id_decoder.", id);
    all.extend(named("ex_decoder.", ex));
    model.set_tensors(&all, "by hand").unwrap();
    model
}

/// Field, colour, anchors and deformation at some points.
fn outputs(model: &HeadModel) -> Vec<Tensor> {
    let (id, ex) = (&model.config.identity, &model.config.deformation);
    let z = init::normal(7, 0, &[1, id.d_id()]) * 0.3;
    let z_ex = init::normal(7, 1, &[1, ex.d_ex]) * 0.3;
    let person = model.person(&z, Some(&z));
    let x = init::normal(7, 2, &[1, 60, 3]) * 0.3;
    let (delta, omega) = model.deformation.forward(&x, &person.compressed, &z_ex);
    let q = Tensor::cat(&[&x + &delta, omega.shallow_clone()], 2);
    let sample = model.canonical_field(&person, &q, Far::Learned);
    let mut all = vec![sample.sdf, person.anchors, delta, omega];
    all.extend(sample.color);
    all
}

fn assert_same(a: &HeadModel, b: &HeadModel) {
    let (a, b) = (outputs(a), outputs(b));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
    assert!(a[0].std(false).double_value(&[]) > 1e-4, "the field is constant");
}

#[test]
fn nphm_loads_from_its_two_checkpoints() {
    let (id, ex, anchors) = (weights_of("forward_id"), weights_of("forward_def"), anchors_of("forward_id"));
    let mut config = HeadConfig::nphm();
    // dimensions of the reference cases, from their descriptions
    let meta = |case: &str| weights::read_json(&golden(&format!("nphm/{case}/meta.json"))).unwrap()["config"].clone();
    let (mi, me) = (meta("forward_id"), meta("forward_def"));
    let n = |value: &serde_json::Value, key: &str| value[key].as_i64().unwrap_or_else(|| panic!("{key} in {value}"));
    let c = &mut config.identity;
    (c.pairs, c.middle, c.d_glob, c.d_loc) = (n(&mi, "n_pairs"), n(&mi, "n_mid"), n(&mi, "d_glob"), n(&mi, "d_loc"));
    (c.hidden, c.layers, c.pos_hidden) = (n(&mi, "hidden"), n(&mi, "n_layers"), n(&mi, "pos_mlp_dim"));
    c.skip_layer = Some(n(&mi, "skip_layer"));
    (config.deformation.d_id, config.deformation.anchors) = (config.identity.d_id(), config.identity.anchors());
    let c = &mut config.deformation;
    (c.d_ex, c.d_compress, c.hidden, c.layers) =
        (n(&me, "d_ex"), n(&me, "d_compress"), n(&me, "hidden"), n(&me, "n_layers"));
    c.skip_layer = n(&me, "skip_layer");

    let (z, z_ex) = (code(1, config.identity.d_id()), code(2, config.deformation.d_ex));
    let [one, two] = nphm_files(&id, &ex, [&z, &z_ex]);
    let (one, two) = (Kept::new("nphm-1.tar", &one), Kept::new("nphm-2.tar", &two));
    // in either order
    for files in [[&*one.0, &*two.0], [&*two.0, &*one.0]] {
        let published = read(&files, &anchors).unwrap();
        assert_eq!(published.model.config, config);
        assert_eq!(generation(&config), "NPHM");
        assert_same(&published.model, &by_hand(&config, &anchors, &id, &ex));
        assert_eq!(published.codes["identity"], z["weight"]);
        assert_eq!(published.codes["expression"], z_ex["weight"]);
        assert!(published.left.contains(&"optimizer_encoder_state_dict.state".to_owned()), "{:?}", published.left);
    }
    // one of the two
    let said = read(&[&one.0], &anchors).err().unwrap().to_string();
    assert!(said.contains("no expression network"), "{said}");
    let said = read(&[&two.0], &anchors).err().unwrap().to_string();
    assert!(said.contains("no identity network"), "{said}");
    let said = read(&[&one.0, &two.0, &two.0], &anchors).err().unwrap().to_string();
    assert!(said.contains("in another file too"), "{said}");
    let said = read(&[&one.0, &two.0], &anchors.narrow(0, 1, anchors.size()[0] - 1)).err().unwrap().to_string();
    assert!(said.contains("mean anchors"), "{said}");
}

#[test]
fn mononphm_loads_from_its_one_checkpoint_and_from_safetensors() {
    let (id, ex, anchors) = (weights_of("backward_id"), weights_of("backward_def"), anchors_of("backward_id"));
    let width = id.values().len() as u8;
    let z = Tensors::from([
        ("geo.embedding.weight".into(), init::normal(1, 0, &[4, 112])),
        ("app.embedding.weight".into(), init::normal(1, 1, &[4, 112])),
        ("exp.embedding.weight".into(), init::normal(1, 2, &[9, 10])),
    ]);
    let codes: Tensors = z.iter().map(|(name, t)| (format!("codebook.{name}"), t.shallow_clone())).collect();
    let bytes = pack(&Item::Dict(vec![
        ("epoch", Item::Int(width)),
        ("id_decoder", state(&id)),
        ("ex_decoder", state(&ex)),
        ("optimizer", state(&codes)),
        ("latent_codes", state(&codes)),
        ("latent_codes_val", state(&codes)),
    ]));
    let file = Kept::new("mono.tar", &bytes);
    let published = read(&[&file.0], &anchors).unwrap();
    let (c, d) = (&published.model.config.identity, &published.model.config.deformation);
    // as the description of the reference case has it
    assert_eq!(
        (c.pairs, c.middle, c.d_glob, c.d_loc, c.n_hyper, c.hidden, c.layers, c.skip_layer),
        (4, 3, 16, 8, 2, 32, 4, None)
    );
    assert_eq!(c.pos_hidden, 24);
    assert_eq!(c.color, Some(ColorConfig { hidden: 32, layers: 4, bottleneck: 16 }));
    assert_eq!(c.blend, HeadConfig::mononphm().identity.blend);
    assert_eq!((d.d_ex, d.d_compress, d.hidden, d.layers, d.skip_layer, d.narrow), (10, 6, 40, 6, 3, false));
    assert_eq!((d.n_hyper, d.direction), (2, Direction::Backward));
    assert_eq!(published.codes.keys().collect::<Vec<_>>(), ["appearance", "expression", "identity"]);
    assert_eq!(published.codes["expression"], z["exp.embedding.weight"]);
    let hand = by_hand(&published.model.config, &anchors, &id, &ex);
    assert_same(&published.model, &hand);

    let mut flat = Tensors::new();
    for (prefix, tensors) in [("id_decoder", &id), ("ex_decoder", &ex), ("latent_codes", &codes)] {
        flat.extend(tensors.iter().map(|(name, t)| (format!("{prefix}.{name}"), t.shallow_clone())));
    }
    let file = Kept::new("mono.safetensors", &[]);
    let write = |tensors: &Tensors| weights::write(&file.0, tensors, &BTreeMap::new(), Precision::Keep).unwrap();
    let read = || read(&[&file.0], &anchors);
    let said = || read().err().unwrap().to_string();
    write(&flat);
    assert_same(&read().unwrap().model, &hand);

    // each fault alone is named
    let name = "id_decoder.aggr_app.layers.2.layers.4.bias";
    let taken = flat.remove(name).unwrap();
    write(&flat);
    assert!(said().contains("1 missing") && said().contains(name), "{}", said());
    flat.insert(name.into(), taken.narrow(0, 0, 5));
    write(&flat);
    assert!(said().contains(&format!("{name} is [5] but must be [32]")), "{}", said());
    flat.insert(name.into(), &taken * f64::NAN);
    write(&flat);
    assert!(said().contains("not finite"), "{}", said());
    flat.insert(name.into(), taken);
    flat.insert("id_decoder.lstm.weight".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    write(&flat);
    assert!(said().contains("1 unexpected: id_decoder.lstm.weight"), "{}", said());
    flat.remove("id_decoder.lstm.weight");
    flat.insert("latent_codes.codebook.exp.embedding.weight".into(), Tensor::zeros([9, 7], (Kind::Float, Device::Cpu)));
    write(&flat);
    assert!(said().contains("expression codes are [9, 7]"), "{}", said());
}

#[test]
fn presets_come_back_from_their_own_shapes() {
    // the published dimensions, all weights zero
    for config in [HeadConfig::nphm(), HeadConfig::mononphm(), HeadConfig::da()] {
        let anchors = Tensor::zeros([config.identity.anchors(), 3], (Kind::Float, Device::Cpu));
        let model = HeadModel::new(&config, &anchors, Device::Cpu).unwrap();
        let weights = weights::sorted(&model.vs);
        assert_eq!(Shapes { source: "itself", weights: &weights }.config().unwrap(), config);
    }
}

#[test]
fn the_global_network_is_told_from_the_local_ones() {
    let tensors = Tensors::from([("lin0.weight".into(), Tensor::zeros([8, 5], (Kind::Float, Device::Cpu)))]);
    let file = Kept::new("npm.tar", &pack(&Item::Dict(vec![("decoder_state_dict", state(&tensors))])));
    let said = read(&[&file.0], &Tensor::zeros([39, 3], (Kind::Float, Device::Cpu))).err().unwrap().to_string();
    assert!(said.contains("NPM") && said.contains("hint:"), "{said}");
}
