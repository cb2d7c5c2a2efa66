//! Pickles as they should be, and as somebody means harm with them.

use super::*;

fn reason(program: &[u8], dialect: Dialect) -> String {
    Pickle::read(program, dialect).err().map(|error| error.reason).unwrap_or_default()
}

#[test]
fn no_name_beyond_the_dialect_goes_in() {
    let all = [Dialect::Numpy, Dialect::Torch, Dialect::BodyModel];
    for dialect in all {
        // os.system, as it is pickled: by instruction, from the stack, and through the older way to make an object
        assert!(reason(b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.", dialect).contains("posix.system"));
        assert!(reason(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", dialect).contains("os.system"));
        assert!(reason(b"\x80\x02(ios\nsystem\n.", dialect).contains("INST"));
        assert!(reason(b"\x80\x02c__builtin__\neval\n.", dialect).contains("__builtin__.eval"));
        assert!(reason(b"\x80\x02\x82\x01.", dialect).contains("EXT1"));
        assert!(reason(b"\x80\x02ctorch.storage\n_load_from_bytes\n.", dialect).contains("_load_from_bytes"));
    }
    assert!(reason(b"\x80\x02ctorch\nFloatStorage\n.", Dialect::Numpy).contains("torch.FloatStorage"));
    assert!(reason(b"\x80\x02cchumpy.ch\nCh\n.", Dialect::Torch).contains("chumpy.ch.Ch"));
    assert!(reason(b"\x80\x03cnumpy\nndarray\n)R.", Dialect::Numpy).contains("does not take"));
}

#[test]
fn plain_values_come_out_as_they_went_in() {
    // {"a": [1, -2, 300, 2**40, -1 (long), True, None, 0.5], 7: ("x", b"y")}, by instruction
    let mut p =
        b"\x80\x02}q\0(X\x01\0\0\0a](K\x01J\xfe\xff\xff\xffM\x2c\x01\x8a\x06\0\0\0\0\0\x01\x8a\x01\xff\x88NG".to_vec();
    p.extend(0.5f64.to_be_bytes());
    p.extend(b"eK\x07X\x01\0\0\0xC\x01y\x86u.");
    let pickle = Pickle::read(&p, Dialect::Torch).unwrap();
    let root = pickle.root();
    let list = pickle.items(pickle.get(root, "a").unwrap()).unwrap();
    use Value::{Bool, Float, Int};
    assert_eq!(list, [Int(1), Int(-2), Int(300), Int(1 << 40), Int(-1), Bool(true), Value::None, Float(0.5)]);
    let (key, tuple) = pickle.entries(root).unwrap()[1];
    assert_eq!((key, pickle.items(tuple).unwrap()), (Int(7), &[Value::Text("x"), Value::Bytes(b"y")][..]));
    // cut anywhere, it is an error and not a crash
    for cut in 0..p.len() {
        assert!(Pickle::read(&p[..cut], Dialect::Torch).is_err(), "{cut}");
    }
}

#[test]
fn what_python_2_wrote_is_read() {
    // {"x": chumpy array of [[1, 3], [2, 4]] in Fortran order, f64}; text is bytes there, and so are numbers
    let mut p = b"\x80\x02}q\x01U\x01xcchumpy.ch\nCh\n)\x81}(U\x01xcnumpy.core.multiarray\n_reconstruct\n".to_vec();
    p.extend(
        b"cnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x02K\x02\x86cnumpy\ndtype\nU\x02f8K\0K\x01\x87R(K\x03U\x01<NNN",
    );
    p.extend(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x88T\x20\0\0\0");
    [1f64, 2.0, 3.0, 4.0].iter().for_each(|value| p.extend(value.to_le_bytes()));
    p.extend(b"tbU\x0b_dirty_varsc__builtin__\nset\n]\x85Rubs.");
    let pickle = Pickle::read(&p, Dialect::BodyModel).unwrap();
    let numbers = pickle.numbers(pickle.get(pickle.root(), "x").unwrap()).unwrap();
    assert_eq!((numbers.shape, numbers.values), (vec![2, 2], vec![1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn depth_and_cycles_cost_nothing() {
    let mut deep = b"\x80\x02)".to_vec();
    deep.extend(std::iter::repeat_n(0x85, 2_000_000));
    deep.push(b'.');
    Pickle::read(&deep, Dialect::Torch).unwrap();
    let pickle = Pickle::read(b"\x80\x02]q\0h\0a.", Dialect::Torch).unwrap();
    assert_eq!(pickle.items(pickle.root()).unwrap(), [pickle.root()]);
    let mut many = b"\x80\x02".to_vec();
    many.extend(std::iter::repeat_n(b']', LARGEST + 1));
    assert!(reason(&many, Dialect::Torch).contains("more than"));
}

#[test]
fn calls_do_not_multiply_what_is_there() {
    // one text, encoded again and again; an array of a million axes
    let mut many = b"\x80\x02c_codecs\nencode\nq\0X\xe8\x03\0\0".to_vec();
    many.extend([b'a'; 1000]);
    many.extend(b"X\x06\0\0\0latin1\x86q\x01R");
    (0..100).for_each(|_| many.extend(b"h\0h\x01R"));
    many.push(b'.');
    assert!(reason(&many, Dialect::Numpy).contains("more out of its parts"), "{}", reason(&many, Dialect::Numpy));
    let mut wide = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R(K\x01(".to_vec();
    (0..1000).for_each(|_| wide.extend(b"K\x01"));
    wide.extend(b"tcnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89C\x04\0\0\0\0tb.");
    assert!(reason(&wide, Dialect::Numpy).contains("shape"), "{}", reason(&wide, Dialect::Numpy));
    let mut call = b"\x80\x02cnumpy\ndtype\n(".to_vec();
    (0..1000).for_each(|_| call.push(b'N'));
    call.extend(b"tR.");
    assert!(reason(&call, Dialect::Numpy).contains("1000 arguments"));
}

#[test]
fn a_tensor_outside_of_its_storage_is_refused() {
    let tensor = |offset: u8, shape: &[u8], strides: &[u8], count: u8| {
        let mut p = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
            .to_vec();
        p.extend(b"0X\x03\0\0\0cpuK");
        p.extend([count, b't', b'Q', b'K', offset, b'(']);
        shape.iter().for_each(|side| p.extend([b'K', *side]));
        p.extend(b"t(");
        strides.iter().for_each(|stride| p.extend([b'K', *stride]));
        p.extend(b"t\x89ccollections\nOrderedDict\n)RtR.");
        p
    };
    let sound = tensor(2, &[2, 3], &[1, 2], 8);
    let pickle = Pickle::read(&sound, Dialect::Torch).unwrap();
    let at = pickle.tensor(pickle.root()).unwrap();
    assert_eq!((at.offset, &at.shape[..], &at.strides[..], at.count), (2, &[2, 3][..], &[1, 2][..], 8));
    for bad in [
        tensor(3, &[2, 3], &[1, 2], 8),
        tensor(2, &[2, 4], &[1, 2], 8),
        tensor(2, &[2, 3], &[1, 3], 8),
        tensor(8, &[], &[], 8),
        tensor(0, &[2], &[1, 1], 8),
    ] {
        assert!(reason(&bad, Dialect::Torch).contains("does not lie within"), "{}", reason(&bad, Dialect::Torch));
    }
    assert!(Pickle::read(&tensor(9, &[0, 3], &[1, 2], 8), Dialect::Torch).is_ok());
}
