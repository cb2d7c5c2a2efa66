//! Linear head models on disk: `.npz` files, and the pickles that FLAME and SMPL are published as, by the same names of
//! fields. Of a pickle only numbers are taken; nothing is executed. Knows no rows.

use super::LinearHead;
use crate::archive;
use crate::numpy;
use crate::pickle::{Dialect, Numbers, Pickle};
use crate::weights::WeightsError;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Numbers of a model's shape, before those of its expression, where the file does not say: FLAME's.
const SHAPES: usize = 300;
/// How far the skinning weights of a vertex may be from 1 in sum.
const SUM: f64 = 1e-3;

/// The fields that a model needs.
const FIELDS: [&str; 7] = ["v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f"];

/// Reads a model, in double precision. Of `shapedirs` the first `shapes` numbers are the shape's and the others the
/// expression's; `None` goes by the field `n_shape`, which our own files have, and without that by FLAME: 300, or all
/// if there are fewer.
///
/// # Errors
/// If the file is missing or damaged, lacks a field, or has one whose shape or values do not fit the others.
pub fn read(path: &Path, shapes: Option<usize>) -> Result<LinearHead, WeightsError> {
    let place = path.display().to_string();
    let wrong = |reason: String| WeightsError::Config {
        place: place.clone(),
        reason,
        hint: format!("a linear head model is an .npz file or a pickle with the fields {}", FIELDS.join(", ")),
    };
    let (mut fields, others) = if archive::is_zip(path) {
        numpy::read_npz(path, &[&FIELDS[..], &["n_shape"]].concat())?
    } else {
        read_pickle(path)?
    };
    for name in FIELDS.iter().chain(&["n_shape"]) {
        if let Some(reason) = others.get(*name) {
            return Err(wrong(format!("{name}: {reason}")));
        }
    }
    let mut take = |name: &str| fields.remove(name).ok_or_else(|| wrong(format!("it has no field {name}")));
    let shape_error =
        |name: &str, found: &[usize], expected: &str| wrong(format!("{name} is {found:?}, expected {expected}"));

    let template = take("v_template")?;
    let [vertices, 3] = template.shape[..] else { return Err(shape_error("v_template", &template.shape, "[V, 3]")) };
    let directions = take("shapedirs")?;
    let [v, 3, all] = directions.shape[..] else {
        return Err(shape_error("shapedirs", &directions.shape, "[V, 3, S]"));
    };
    if v != vertices {
        return Err(shape_error("shapedirs", &directions.shape, &format!("[{vertices}, 3, S]")));
    }
    let weights = take("weights")?;
    let [v, joints] = weights.shape[..] else { return Err(shape_error("weights", &weights.shape, "[V, J]")) };
    if v != vertices || joints == 0 {
        return Err(shape_error("weights", &weights.shape, &format!("[{vertices}, J]")));
    }
    let regressor = take("J_regressor")?;
    if regressor.shape != [joints, vertices] {
        return Err(shape_error("J_regressor", &regressor.shape, &format!("[{joints}, {vertices}]")));
    }
    let tree = take("kintree_table")?;
    if tree.shape != [2, joints] {
        return Err(shape_error("kintree_table", &tree.shape, &format!("[2, {joints}]")));
    }
    let faces = take("f")?;
    let [_, 3] = faces.shape[..] else { return Err(shape_error("f", &faces.shape, "[F, 3]")) };
    let poses = take("posedirs")?;
    let bends = 9 * (joints - 1);
    let poses_are = match poses.shape[..] {
        [v, 3, p] if v == vertices && p == bends => false,
        // as the Python packages keep it in memory: a row for each element
        [p, flat] if p == bends && flat == 3 * vertices => true,
        _ => {
            let expected = format!("[{vertices}, 3, {bends}] or [{bends}, {}]", 3 * vertices);
            return Err(shape_error("posedirs", &poses.shape, &expected));
        }
    };
    for (vertex, row) in weights.values.chunks_exact(joints).enumerate() {
        let sum: f64 = row.iter().sum();
        if (sum - 1.0).abs() > SUM || row.iter().any(|w| *w < -SUM) {
            return Err(wrong(format!(
                "weights of vertex {vertex} sum to {sum}, expected 1 of parts that are not negative"
            )));
        }
    }
    if let Some(index) =
        faces.values.iter().find(|index| **index < 0.0 || **index >= vertices as f64 || index.fract() != 0.0)
    {
        return Err(wrong(format!("f names vertex {index} of {vertices}")));
    }
    let parents = parents(&tree).map_err(wrong)?;
    let said = match fields.remove("n_shape") {
        None => None,
        Some(n) => match n.values[..] {
            [n] if n >= 0.0 && n.fract() == 0.0 => Some(n as usize),
            _ => return Err(wrong(format!("n_shape is {:?}, expected one whole number", n.values))),
        },
    };
    let shapes = shapes.or(said).unwrap_or_else(|| SHAPES.min(all));
    if shapes > all {
        return Err(wrong(format!("shapedirs has {all} directions, {shapes} of them were to be the shape's")));
    }
    let directions = tensor(&directions);
    let poses = match poses_are {
        true => tensor(&poses).reshape([bends as i64, vertices as i64, 3]).permute([1, 2, 0]).contiguous(),
        false => tensor(&poses),
    };
    Ok(LinearHead {
        template: tensor(&template),
        shapes: directions.narrow(2, 0, shapes as i64).contiguous(),
        expressions: directions.narrow(2, shapes as i64, (all - shapes) as i64).contiguous(),
        pose_corrections: poses,
        joint_regressor: tensor(&regressor),
        parents,
        skinning: tensor(&weights),
        faces: faces.values.as_chunks().0.iter().map(|face: &[f64; 3]| face.map(|index| index as u32)).collect(),
    })
}

/// The bytes of an `.npz` file of a model, with the fields that [`read`] takes and `n_shape`. Equal models give equal
/// bytes.
pub fn pack(head: &LinearHead) -> Vec<u8> {
    let joints = head.parents.len();
    let tree = head.parents.iter().map(|parent| parent.map_or(-1.0, |parent| parent as f64));
    let whole = |shape: &[usize], values: Vec<f64>| Numbers { shape: shape.to_vec(), values };
    let faces = head.faces.as_flattened().iter().map(|index| f64::from(*index)).collect();
    numpy::pack_npz(&BTreeMap::from([
        ("v_template".to_owned(), numbers(&head.template)),
        ("shapedirs".to_owned(), numbers(&Tensor::cat(&[&head.shapes, &head.expressions], 2))),
        ("posedirs".to_owned(), numbers(&head.pose_corrections)),
        ("J_regressor".to_owned(), numbers(&head.joint_regressor)),
        ("kintree_table".to_owned(), whole(&[2, joints], tree.chain((0..joints).map(|joint| joint as f64)).collect())),
        ("weights".to_owned(), numbers(&head.skinning)),
        ("f".to_owned(), whole(&[head.faces.len(), 3], faces)),
        ("n_shape".to_owned(), whole(&[], vec![head.widths()[0] as f64])),
    ]))
}

type Fields = (BTreeMap<String, Numbers>, BTreeMap<String, String>);

/// The wanted fields of a pickled dictionary.
fn read_pickle(path: &Path) -> Result<Fields, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { verb: "read", path: path.into(), source })?;
    let wrong = |e: crate::pickle::PickleError| {
        WeightsError::Config {
        place: path.display().to_string(),
        reason: format!("it is not a usable pickle of a body model: {e}"),
        hint: "it is to be as FLAME and SMPL are published, or an .npz file of the same fields; nothing else in it is read".into(),
    }
    };
    let pickle = Pickle::read(&bytes, Dialect::BodyModel).map_err(wrong)?;
    if pickle.entries(pickle.root()).is_none() {
        return Err(wrong(pickle.wrong("it holds no dictionary")));
    }
    let (mut arrays, mut others) = (BTreeMap::new(), BTreeMap::new());
    for name in FIELDS {
        let Some(value) = pickle.get(pickle.root(), name) else { continue };
        match pickle.numbers(value) {
            Ok(numbers) if numbers.values.iter().all(|value| value.is_finite()) => {
                _ = arrays.insert(name.to_owned(), numbers)
            }
            Ok(_) => _ = others.insert(name.to_owned(), "values that are not finite".to_owned()),
            Err(error) => _ = others.insert(name.to_owned(), error.reason),
        }
    }
    Ok((arrays, others))
}

/// Parents of the joints. The second row numbers them, the first names each one's parent; the root's is -1 in some
/// width of integers.
fn parents(tree: &Numbers) -> Result<Vec<Option<usize>>, String> {
    let (above, own) = tree.values.split_at(tree.shape[1]);
    let parent = |(joint, parent): (usize, &f64)| {
        if joint == 0 {
            return Ok(None);
        }
        let found = own[..joint].iter().position(|id| id == parent);
        found
            .map(Some)
            .ok_or_else(|| format!("kintree_table: parent {parent} of joint {joint} does not stand before it"))
    };
    above.iter().enumerate().map(parent).collect()
}

fn tensor(numbers: &Numbers) -> Tensor {
    let shape: Vec<i64> = numbers.shape.iter().map(|side| *side as i64).collect();
    Tensor::from_slice(&numbers.values).reshape(shape)
}

fn numbers(tensor: &Tensor) -> Numbers {
    let values = tensor.to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous().reshape([-1]);
    Numbers {
        shape: tensor.size().iter().map(|side| *side as usize).collect(),
        values: Vec::try_from(values).expect("values are doubles"),
    }
}
