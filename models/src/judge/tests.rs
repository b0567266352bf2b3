use super::*;

/// Writes protobuf: tag, then the value.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }
}

fn new() -> Message {
    Message::default()
}

fn port_of(name: &str, element: u64, dims: &[u64]) -> Message {
    let shape =
        dims.iter().fold(new(), |shape, dim| shape.message(1, if *dim == 0 { new().bytes(2, b"rows") } else { new().number(1, *dim) }));
    new().bytes(1, name.as_bytes()).message(2, new().message(1, new().number(1, element).message(2, shape)))
}

fn node_of(op: &str, domain: &str) -> Message {
    new().bytes(1, b"x").bytes(2, b"y").bytes(3, b"n1").bytes(4, op.as_bytes()).bytes(7, domain.as_bytes())
}

fn tensor_of(name: &str, dims: &[u64], data: &[f32]) -> Message {
    let raw: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dims = dims.iter().fold(new(), |tensor, dim| tensor.number(1, *dim));
    dims.number(2, FLOAT).bytes(8, name.as_bytes()).bytes(9, &raw)
}

/// A small graph, with more fields appended.
fn graph_with(more: impl FnOnce(Message) -> Message) -> Vec<u8> {
    let graph =
        new().message(1, node_of("Identity", "")).message(11, port_of("x", FLOAT, &[0, 3])).message(12, port_of("y", FLOAT, &[0, 1]));
    new().number(1, 8).bytes(2, b"test").message(7, more(graph)).message(8, new().number(2, 17)).0
}

fn refused(bytes: &[u8]) -> Rejection {
    judge(bytes, &Limits::default()).unwrap_err()
}

fn refusal_of(more: impl FnOnce(Message) -> Message) -> Rejection {
    refused(&graph_with(more))
}

#[test]
fn real_models_pass_and_their_facts_are_known() {
    let read = |path: &str| std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let boosted = judge(&read("fixtures/repository/boosted/versions/1/model.onnx"), &Limits::default()).unwrap();
    assert_eq!(boosted.inputs.len(), 1);
    assert!(matches!(&boosted.inputs[0].kind, PortKind::Tensor(FLOAT, dims) if dims.len() == 2), "{boosted:?}");
    assert!(boosted.operators.keys().any(|op| op.starts_with("TreeEnsemble")), "{boosted:?}");
    let classifier = judge(&read("fixtures/classifier.onnx"), &Limits::default()).unwrap();
    assert_eq!(classifier.outputs.len(), 2);
    judge(&read("default/abuse/versions/1/model.onnx"), &Limits::default()).unwrap();
    let plain = judge(&graph_with(|graph| graph.message(5, tensor_of("w", &[2, 3], &[0.0; 6]))), &Limits::default()).unwrap();
    assert_eq!((plain.producer.as_str(), plain.inputs.len()), ("test", 1));
}

#[test]
fn every_class_has_its_own_reason() {
    let big = Limits { bytes: 100, ..Limits::default() };
    assert_eq!(judge(&[0; 101], &big).unwrap_err(), Rejection::TooLarge { bytes: 101, allowed: 100 });
    assert_eq!(refused(b"\x80\x04\x95pickle"), Rejection::Mislabelled { found: "a Python pickle" });
    assert_eq!(refused(b"").class(), "mislabelled");
    assert_eq!(refused(&new().number(1, 8).0), Rejection::Empty { what: "graph" });
    assert_eq!(refusal_of(|graph| graph.message(1, node_of("Evil", "com.evil"))).class(), "custom-operator");
    assert_eq!(refusal_of(|graph| graph.message(1, node_of("Loop", ""))).class(), "control-flow");
    let branch = node_of("Harmless", "").message(5, new().bytes(1, b"body").message(6, new()));
    assert_eq!(refusal_of(|graph| graph.message(1, branch)).class(), "control-flow");
    assert_eq!(refusal_of(|graph| graph.message(1, node_of("RandomNormalLike", ""))).class(), "random");
    let many = refusal_of(|graph| (0..5_001).fold(graph, |graph, _| graph.message(1, node_of("Relu", ""))));
    assert_eq!(many, Rejection::TooManyNodes { allowed: 5_000 });
    let outside = tensor_of("w", &[1], &[0.0]).message(13, new().bytes(1, b"location").bytes(2, b"../../etc/shadow")).number(14, 1);
    let outside = refusal_of(|graph| graph.message(5, outside));
    assert_eq!(outside, Rejection::ExternalData { tensor: "w".into(), location: "../../etc/shadow".into() });
    let claims = refusal_of(|graph| graph.message(5, tensor_of("w", &[1 << 40], &[0.0])));
    assert_eq!(claims, Rejection::TensorShape { tensor: "w".into(), shape: vec![1 << 40], bytes: 4 });
    assert_eq!(refusal_of(|graph| graph.message(5, tensor_of("w", &[u64::MAX], &[0.0]))).class(), "tensor-shape");
    assert_eq!(refusal_of(|graph| graph.message(5, tensor_of("w", &[1 << 32, 1 << 32, 0x10], &[]))).class(), "tensor-shape");
    assert_eq!(refusal_of(|graph| graph.message(15, new().message(1, tensor_of("s", &[1], &[0.0])))).class(), "sparse");
    assert_eq!(refusal_of(|graph| graph.message(11, port_of("../x", FLOAT, &[0, 1]))).class(), "name");
    assert_eq!(refusal_of(|graph| graph.message(11, port_of("t", 8, &[0, 1]))).class(), "input");
    assert_eq!(refusal_of(|graph| graph.message(11, port_of("t", FLOAT, &[0, 3, 224, 224]))).class(), "input");
    let twice = Message(graph_with(|graph| graph)).message(7, new().message(1, node_of("Identity", "")));
    assert!(matches!(refused(&twice.0), Rejection::Broken { what: "a second graph", .. }));
    // Tag 7 with a bit beyond 32: some parsers would read a graph.
    assert!(matches!(refused(&[0xba, 0x80, 0x80, 0x80, 0x10, 0]), Rejection::Broken { what: "a field without a proper number", .. }));
    let model = |field| new().message(field, new().bytes(1, b"f")).message(7, node_of("Identity", "")).0;
    assert_eq!((refused(&model(25)).class(), refused(&model(20)).class()), ("functions", "training"));
}

#[test]
fn a_small_constant_makes_no_huge_tensor() {
    let maker = |op: &str, inputs: [&str; 2]| {
        inputs.iter().fold(new(), |node, input| node.bytes(1, input.as_bytes())).bytes(2, b"z").bytes(4, op.as_bytes())
    };
    let shape = |dims: &[i64]| {
        let raw: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        new().number(1, dims.len() as u64).number(2, INT64).bytes(8, b"shape").bytes(9, &raw)
    };
    let bomb = |op: &str, inputs, dims: &[i64]| graph_with(|graph| graph.message(1, maker(op, inputs)).message(5, shape(dims)));
    let limits = Limits::default();
    assert!(
        matches!(refused(&bomb("ConstantOfShape", ["shape", ""], &[1 << 20, 1 << 20])), Rejection::HugeTensor { elements, .. } if elements == 1 << 40)
    );
    assert_eq!(refused(&bomb("Expand", ["x", "shape"], &[i64::MAX, i64::MAX, 8])).class(), "huge-tensor");
    assert_eq!(refused(&bomb("Tile", ["x", "shape"], &[1, 1 << 30])).class(), "huge-tensor");
    judge(&bomb("ConstantOfShape", ["shape", ""], &[16, 16]), &limits).unwrap();
    // The same from a Constant node instead of an initialiser.
    let constant = new().bytes(2, b"made").bytes(4, b"Constant").message(5, new().bytes(1, b"value").message(5, shape(&[1 << 33])));
    let bytes = graph_with(|graph| graph.message(1, maker("ConstantOfShape", ["made", ""])).message(1, constant));
    assert_eq!(refused(&bytes).class(), "huge-tensor");
}

#[test]
fn a_shape_is_found_in_every_form_and_behind_what_passes_it_on() {
    let node = |op: &str, inputs: &[&str], output: &str| {
        inputs.iter().fold(new(), |node, input| node.bytes(1, input.as_bytes())).bytes(2, output.as_bytes()).bytes(4, op.as_bytes())
    };
    let constant = |output: &str, attribute: Message| node("Constant", &[], output).message(5, attribute);
    let packed = |numbers: &[u64]| {
        let mut all = new();
        numbers.iter().for_each(|number| all.varint(*number));
        all.0
    };
    let maker = || node("ConstantOfShape", &["shape"], "z");
    let float = |value: f32| value.to_le_bytes();
    let forms = [
        new().bytes(1, b"value_int").number(3, 1 << 33),
        new().bytes(1, b"value_ints").bytes(8, &packed(&[1 << 20, 1 << 20])),
        new().bytes(1, b"value_ints").number(8, 1 << 20).number(8, 1 << 20),
        new().bytes(1, b"value_floats").bytes(7, &[float(1e6), float(1e6)].concat()),
        // A small tensor beside it hides nothing.
        new().bytes(1, b"value").message(5, tensor_of("t", &[1], &[1.0])).number(8, 1 << 33),
        // More numbers than any shape has.
        new().bytes(1, b"value_ints").bytes(8, &packed(&[2; 70])),
    ];
    for (at, form) in forms.into_iter().enumerate() {
        let bytes = graph_with(|graph| graph.message(1, constant("shape", form)).message(1, maker()));
        assert_eq!(refused(&bytes).class(), "huge-tensor", "form {at}");
    }
    // Behind nodes that pass it on, which may stand in any order.
    let ints = |numbers: &[u64]| new().bytes(1, b"value_ints").bytes(8, &packed(numbers));
    let through = |graph: Message| {
        let graph = graph.message(1, maker()).message(1, node("Concat", &["b", "b"], "shape")).message(1, node("Cast", &["a"], "b"));
        graph.message(1, constant("a", ints(&[1 << 20])))
    };
    assert!(matches!(refusal_of(through), Rejection::HugeTensor { elements, .. } if elements == 1 << 40));
    // One factor behind the other.
    let tiles = |graph: Message| {
        let graph = graph.message(1, constant("by", ints(&[1, 1_000])));
        (0..3).fold(graph, |graph, at| graph.message(1, node("Tile", &[&format!("t{at}"), "by"], &format!("t{}", at + 1))))
    };
    assert_eq!(refusal_of(tiles).class(), "huge-tensor");
    let harmless = graph_with(|graph| graph.message(1, constant("shape", ints(&[3, 4]))).message(1, maker()));
    judge(&harmless, &Limits::default()).unwrap();
}

#[test]
fn what_the_file_counts_is_bounded_before_anything_is_made_of_it() {
    let many = refusal_of(|graph| (0..10_001).fold(graph, |graph, at| graph.message(5, tensor_of(&at.to_string(), &[0], &[]))));
    assert_eq!(many, Rejection::TooManyTensors { allowed: 10_000 });
    assert_eq!(many.class(), "too-many-tensors");
    let deep = refusal_of(|graph| graph.message(5, tensor_of("w", &[1; 17], &[0.0])));
    assert_eq!(deep, Rejection::TooManyDimensions { tensor: "w".into(), allowed: 16 });
    // Beyond the numbers that are kept a dimension would not be seen.
    let hidden: Vec<u64> = [1; 65].into_iter().chain([1 << 40]).collect();
    assert_eq!(refusal_of(|graph| graph.message(5, tensor_of("w", &hidden, &[0.0]))).class(), "dimensions");
    let wide = (0..100_001).fold(node_of("Sum", ""), |node, _| node.bytes(1, b"x"));
    assert_eq!(refusal_of(|graph| graph.message(1, wide)).class(), "too-many-names");
    assert_eq!(refusal_of(|graph| (0..100_001).fold(graph, |graph, _| graph.message(13, new()))).class(), "too-many-names");
    let versions = (0..100_001).fold(Message(graph_with(|graph| graph)), |model, _| model.message(8, new()));
    assert_eq!(refused(&versions.0).class(), "too-many-names");
}

#[test]
fn cut_or_changed_files_are_refused_and_never_panic() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/classifier.onnx");
    let bytes = std::fs::read(path).unwrap();
    let limits = Limits::default();
    // A cut at a field's boundary is a smaller message; what then is missing is the graph.
    for end in 0..bytes.len() {
        assert!(judge(&bytes[..end], &limits).is_err() || end > 3 * bytes.len() / 4, "cut at {end} of {}", bytes.len());
    }
    for at in 0..bytes.len() {
        for bit in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            judge(&changed, &limits).ok();
        }
    }
}
