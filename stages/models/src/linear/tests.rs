//! Linear heads: a toy whose poses are known by hand, another model's numbers, and files that do not fit.

use super::files::{pack, read};
use super::*;
use crate::checkpoint::tests::{Kept, fixture};
use crate::numpy::{pack_npz, read_npz};
use crate::pickle::Numbers;
use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;

fn doubles(shape: &[i64], values: &[f64]) -> Tensor {
    Tensor::from_slice(values).reshape(shape)
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Double, Device::Cpu))
}

/// Two joints on the y axis, at 0 and 1. Vertex 0 follows the first, 1 the second, 2 both alike.
fn toy() -> LinearHead {
    LinearHead {
        template: doubles(&[3, 3], &[0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 1.0]),
        // the shape lifts vertices 0 and 1, so also the joints; the expression pushes vertex 1 forward
        shapes: doubles(&[3, 3, 1], &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        expressions: doubles(&[3, 3, 1], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]),
        pose_corrections: zeros(&[3, 3, 9]),
        joint_regressor: doubles(&[2, 3], &[1.0, 0.0, 0.0, 0.5, 0.5, 0.0]),
        parents: vec![None, Some(0)],
        skinning: doubles(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.5, 0.5]),
        faces: vec![[0, 1, 2]],
    }
}

fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size());
    let worst = (found - expected).abs().max().double_value(&[]);
    assert!(worst < tolerance, "off by {worst}:\n{found}\n{expected}");
}

#[test]
fn a_toy_moves_as_by_hand() {
    let check = |shape: f64, expression: f64, pose: [f64; 6], expected: [f64; 9]| {
        let posed =
            toy().pose(&doubles(&[1, 1], &[shape]), &doubles(&[1, 1], &[expression]), &doubles(&[1, 2, 3], &pose));
        close(&posed.unwrap().vertices, &doubles(&[1, 3, 3], &expected), 1e-12);
    };
    check(0.0, 0.0, [0.0; 6], [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 1.0]);
    check(1.0, 2.0, [0.0; 6], [0.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.0, 1.0, 1.0]);
    // a quarter about z at the second joint (0, 1, 0): (0, 2, 0) goes to (-1, 1, 0); (0, 1, 1) lies on the axis
    check(0.0, 0.0, [0.0, 0.0, 0.0, 0.0, 0.0, FRAC_PI_2], [0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    // about x at both: (0, 2, 0) -> (0, 1, 1) at the second, -> (0, -1, 1) at the first; (0, 1, 1) goes to
    // (0, -1, 1) with the first, and to (0, 0, 0) -> (0, 0, 0) with the second
    check(0.0, 0.0, [FRAC_PI_2, 0.0, 0.0, FRAC_PI_2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, -0.5, 0.5]);
    // the shape lifts joints too: the second is at (0, 2, 0) and vertex 1 at (0, 3, 0)
    check(1.0, 0.0, [0.0, 0.0, 0.0, 0.0, 0.0, FRAC_PI_2], [0.0, 1.0, 0.0, -1.0, 2.0, 0.0, 0.5, 1.5, 1.0]);
}

#[test]
fn corrections_follow_the_elements_of_the_matrix() {
    let head = toy();
    // vertex 0 moves along x with element (0, 1) of the second joint's matrix, which is -sin of a turn about z
    let _ = head.pose_corrections.get(0).get(0).get(1).fill_(2.0);
    let pose = doubles(&[1, 2, 3], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.3]);
    let none = zeros(&[1, 0]);
    let posed = head.pose(&none, &none, &pose).unwrap().vertices;
    assert!((posed.double_value(&[0, 0, 0]) + 2.0 * 0.3f64.sin()).abs() < 1e-12);
}

#[test]
fn rotations_are_exact_and_have_gradients_at_rest() {
    let angles = [0.0, 1e-9, 1e-5, 9e-4, 1.1e-3, 0.4, 3.0];
    for angle in angles {
        let found = rotation_matrices(&doubles(&[1, 3], &[0.0, 0.0, angle]));
        let (s, c) = angle.sin_cos();
        close(&found, &doubles(&[1, 3, 3], &[c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0]), 1e-13);
    }
    let at = zeros(&[1, 3]).set_requires_grad(true);
    rotation_matrices(&at).select(1, 1).select(1, 0).sum(Kind::Double).backward();
    close(&at.grad(), &doubles(&[1, 3], &[0.0, 0.0, 1.0]), 1e-12);
}

#[test]
fn every_published_form_of_a_model_gives_what_numpy_gave() {
    let (expected, _) =
        read_npz(&fixture("linear_expected.npz"), &["coefficients", "pose", "vertices", "joints"]).unwrap();
    let tensor = |name: &str| {
        let n = &expected[name];
        doubles(&n.shape.iter().map(|s| *s as i64).collect::<Vec<_>>(), &n.values)
    };
    let coefficients = tensor("coefficients");
    for name in ["linear.npz", "linear_protocol_2.pkl", "linear_protocol_4.pkl"] {
        let head = read(&fixture(name), Some(5)).unwrap();
        assert_eq!((head.widths(), head.parents.clone()), ([5, 2], vec![None, Some(0), Some(1), Some(1)]));
        assert_eq!(head.faces, [[0, 1, 2], [3, 4, 5], [9, 10, 11]]);
        let posed = head.pose(&coefficients.narrow(1, 0, 5), &coefficients.narrow(1, 5, 2), &tensor("pose")).unwrap();
        close(&posed.vertices, &tensor("vertices"), 1e-12);
        close(&posed.joints, &tensor("joints"), 1e-12);
        // in single precision it is the same model
        let single = head.to(Kind::Float, Device::Cpu);
        let float = |t: &Tensor| t.to_kind(Kind::Float);
        let posed = single
            .pose(&float(&coefficients.narrow(1, 0, 5)), &float(&coefficients.narrow(1, 5, 2)), &float(&tensor("pose")))
            .unwrap();
        close(&posed.vertices.to_kind(Kind::Double), &tensor("vertices"), 1e-5);
    }
}

#[test]
fn our_own_file_is_read_back_equal_and_written_the_same() {
    let head = toy();
    let bytes = pack(&head);
    assert_eq!(bytes, pack(&toy()));
    let file = Kept::new("toy.npz", &bytes);
    let back = read(&file.0, None).unwrap();
    assert_eq!((back.widths(), &back.parents, &back.faces), ([1, 1], &head.parents, &head.faces));
    assert_eq!(pack(&back), bytes);
}

#[test]
fn what_does_not_fit_is_named() {
    let file = Kept::new("sound.npz", &pack(&toy()));
    let names = ["v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f", "n_shape"];
    let (sound, _) = read_npz(&file.0, &names).unwrap();
    let said = |change: &dyn Fn(&mut BTreeMap<String, Numbers>)| {
        let mut fields = sound.clone();
        change(&mut fields);
        let file = Kept::new("bad.npz", &pack_npz(&fields));
        let error = read(&file.0, None).unwrap_err().to_string();
        assert!(error.contains("hint:"), "{error}");
        error
    };
    let set = |name: &'static str, at: usize, value: f64| {
        move |fields: &mut BTreeMap<String, Numbers>| fields.get_mut(name).unwrap().values[at] = value
    };
    let reshaped = |name: &'static str, shape: &'static [usize]| {
        move |fields: &mut BTreeMap<String, Numbers>| {
            let n = shape.iter().product();
            fields.insert(name.into(), Numbers { shape: shape.to_vec(), values: vec![0.0; n] });
        }
    };
    let check = |error: String, part: &str| assert!(error.contains(part), "{error}");
    for name in ["v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f"] {
        check(said(&|fields| _ = fields.remove(name)), &format!("no field {name}"));
        check(said(&reshaped(name, &[2, 2, 2, 2])), &format!("{name} is [2, 2, 2, 2]"));
    }
    check(said(&reshaped("J_regressor", &[2, 4])), "expected [2, 3]");
    check(said(&set("weights", 0, 0.5)), "weights of vertex 0 sum to 0.5");
    check(said(&set("f", 2, 3.0)), "f names vertex 3 of 3");
    check(said(&set("kintree_table", 1, 1.0)), "parent 1 of joint 1");
    check(said(&set("n_shape", 0, 9.0)), "9 of them");
    check(said(&set("v_template", 4, f64::NAN)), "not a finite number");

    let armed = Kept::new("armed.pkl", b"\x80\x02cposix\nsystem\nU\x02id\x85R.");
    check(read(&armed.0, None).unwrap_err().to_string(), "posix.system");
    let whole = std::fs::read(fixture("linear_protocol_2.pkl")).unwrap();
    for cut in (0..whole.len()).step_by(97) {
        let file = Kept::new("cut.pkl", &whole[..cut]);
        assert!(read(&file.0, None).is_err(), "{cut}");
    }
    let head = toy();
    let error = head.pose(&zeros(&[1, 2]), &zeros(&[1, 0]), &zeros(&[1, 2, 3])).err().unwrap().to_string();
    check(error, "up to 1");
}
