//! Hand-made pickles, honest and hostile.

use super::*;

/// The instructions for text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&[op::BINUNICODE], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn ints(values: &[i32]) -> Vec<u8> {
    let int = |value: &i32| [&[op::BININT], &value.to_le_bytes()[..]].concat();
    let values = values.iter().flat_map(int);
    [op::MARK].into_iter().chain(values).chain([op::TUPLE]).collect()
}

/// The instructions for a tensor, as `torch.save` writes it.
pub(crate) fn tensor(
    class: &str,
    key: &str,
    offset: u8,
    shape: &[i32],
    strides: &[i32],
) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        format!("ctorch\n{class}\n").as_bytes(),
        &text(key),
        &text("cpu"),
        &[op::BININT1, 9, op::TUPLE, op::BINPERSID, op::BININT1, offset],
        &ints(shape),
        &ints(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A whole pickle: a dictionary of `items`, each the instructions for a value.
pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().flat_map(|(name, item)| [text(name), item.clone()].concat());
    [0x80, 2, op::EMPTY_DICT, op::MARK].into_iter().chain(items).chain(*b"u.").collect()
}

#[test]
fn tensors_are_described() {
    let tensor = tensor("HalfStorage", "7", 3, &[2, 1], &[1, 2]);
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n", &tensor[..], b"\x88)\x87R"].concat();
    let long = b"\x8a\x05\xff\xff\xff\xff\xff".to_vec();
    let pickle = dict(&[
        ("a", long.clone()),
        ("a", tensor),
        ("b", parameter),
        ("c", long),
        ("d", vec![b'}']),
    ]);
    let items = read(&pickle).unwrap();
    let expected = TensorRef {
        storage: Storage { class: "HalfStorage", key: "7" },
        offset: 3,
        shape: vec![2, 1],
        strides: vec![1, 2],
    };
    assert_eq!(items["a"], Item::Tensor(expected.clone()));
    assert_eq!(items["b"], Item::Tensor(expected));
    assert_eq!(items["c"], Item::Other("a number"));
    assert_eq!(items["d"], Item::Other("a dictionary"));
}

#[test]
fn newer_protocols_and_attributes_are_read() {
    let pickle = b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R\x94\
          \x8c\x01aJ\xff\xff\xff\xffs}\x8c\x09_metadatah\0sb.";
    assert_eq!(read(pickle).unwrap()["a"], Item::Other("a number"));
}

#[test]
fn unknown_globals_and_instructions_are_refused_by_name() {
    let at = 4 + 6;
    let global = dict(&[("a", b"cos\nsystem\n".to_vec())]);
    assert_eq!(read(&global), Err(PickleError::Global { at, name: "os.system".into() }));
    let class = dict(&[("a", b"ctorch\nComplexFloatStorage\n".to_vec())]);
    assert!(matches!(read(&class), Err(PickleError::Global { .. })));
    let instance = read(b"\x80\x02(ios\nsystem\n.").unwrap_err();
    assert_eq!(instance, PickleError::Opcode { at: 3, code: op::INST });
    assert!(instance.to_string().contains("INST (0x69)"), "{instance}");
    assert_eq!(read(b"\xff"), Err(PickleError::Opcode { at: 0, code: 0xff }));
}

#[test]
fn every_prefix_is_refused_and_no_changed_byte_panics() {
    let whole = dict(&[("a", tensor("FloatStorage", "0", 0, &[2, 3], &[3, 1]))]);
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "{len} bytes");
    }
    for at in 0..whole.len() {
        for byte in 0..=255 {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}

#[test]
fn instructions_that_do_not_fit_are_refused() {
    for pickle in [
        &b"."[..],
        b"N.",
        b"\x85.",
        b"t.",
        b"s.",
        b"}(Nu.",
        b"}K\x01K\x01s.",
        b"(}0.",
        b"N(}tu.",
        b"q\0.",
        b"h\0.",
        b"NN\x93.",
        b"NQ.",
        b")Q.",
        b"NNR.",
        b"ccollections\nOrderedDict\nN\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_parameter\n)R.",
        b"NNb.",
        b"X\xff\xff\xff\xff.",
        b"X\x01\0\0\0\xff.",
        b"\x8a\x09\0\0\0\0\0\0\0\0\0.",
        b"c",
    ] {
        assert!(read(pickle).is_err(), "{}", pickle.escape_ascii());
    }
}

#[test]
fn hostile_sizes_are_refused() {
    for (shape, strides) in [(&[-1][..], &[1][..]), (&[1], &[-1]), (&[1; 9], &[1; 9])] {
        let pickle = dict(&[("a", tensor("FloatStorage", "0", 0, shape, strides))]);
        assert!(matches!(read(&pickle), Err(PickleError::Malformed { .. })));
    }
    assert_eq!(read(&vec![b'}'; MAX_LEN + 1]), Err(PickleError::TooLong { len: MAX_LEN + 1 }));
}

#[test]
fn nesting_and_sharing_cost_no_more_than_their_length() {
    let start = b"}X\x01\0\0\0a";
    // A tuple of a tuple of …; a tuple that holds its predecessor twice; distant memo entries.
    let deep = [&start[..], b")", &[op::TUPLE1; 1 << 20], b"s."].concat();
    let shared = [&start[..], b")q\0", &b"h\0\x86q\0".repeat(1 << 18), b"s."].concat();
    let distant = [&start[..], b"Nr\xff\xff\xff\xff", b"s."].concat();
    for pickle in [deep, shared, distant] {
        assert!(matches!(read(&pickle).unwrap()["a"], Item::Other(_)));
    }
    // A dictionary that holds itself.
    assert_eq!(read(b"}q\0X\x01\0\0\0ah\0s.").unwrap()["a"], Item::Other("a dictionary"));
}
