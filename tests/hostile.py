"""Builds the corpus of hostile and broken models: one file a case, and `expected.json` with the class of the guard that must stop each.

`python tests/hostile.py FOLDER`. Every file is small or made by repetition; none of them does anything outside the process that runs it.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
FEATURES = ("address.requests_1m", "address.users_failed_10m", "session.objects_10m")
CASES: list[tuple[str, str, Callable[[], bytes]]] = []


def case(guard: str, name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Adds a case that this guard must stop."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES.append((guard, name, build))
        return build

    return add


def port(name: str, *dims: int | str | None, kind: int = FLOAT) -> ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, list(dims))


def model(nodes: list[NodeProto], tensors: list[TensorProto] | None = None, names: str | None = ",".join(FEATURES)) -> ModelProto:
    """A model of one matrix of three features that gives `y`."""
    inputs, outputs = [port("x", None, 3)], [port("y", None, 1)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="corpus")
    if names is not None:
        helper.set_model_props(made, {"telltale.inputs": names})
    return made


def node(op: str, inputs: list[str], outputs: list[str], **more: object) -> NodeProto:
    """A node."""
    return helper.make_node(op, inputs, outputs, name=op.lower(), **more)


def total(given: str = "x") -> NodeProto:
    """The sum of a row."""
    return node("ReduceSum", [given], ["y"], keepdims=1, noop_with_empty_axes=0)


def column_sum() -> list[NodeProto]:
    """What a harmless model does: the sum of its columns."""
    return [node("MatMul", ["x", "w"], ["y"])]


def weights(rows: int = 3, columns: int = 1, value: float = 1.0) -> TensorProto:
    """A matrix of weights."""
    return numpy_helper.from_array(np.full((rows, columns), value, np.float32), "w")


def shape(*dims: int) -> TensorProto:
    """A constant shape."""
    return numpy_helper.from_array(np.array(dims, np.int64), "shape")


def good() -> ModelProto:
    """A harmless model."""
    return model(column_sum(), [weights()])


@case("too-large", "padded")
def _() -> bytes:
    made = good()
    made.doc_string = "x" * (65 << 20)
    return made.SerializeToString()


@case("too-large", "weights")
def _() -> bytes:
    return model(column_sum(), [weights(3, 6_000_000)]).SerializeToString()


for magic, title in (
    (pickle.dumps({"model": 1}, 4), "pickle"),
    (b"PK\x03\x04zip", "zip"),
    (b"\x89HDF\r\n", "hdf5"),
    (b"\x7fELF", "program"),
):
    case("mislabelled", title)(lambda magic=magic: magic + bytes(200))
case("mislabelled", "lightgbm-text")(lambda: b"tree\nversion=v4\n")
case("mislabelled", "empty")(lambda: b"")


@case("empty", "cut-between-fields")
def _() -> bytes:
    made = good()
    made.ClearField("opset_import")
    made.ClearField("metadata_props")
    return made.SerializeToString()


for share in (0.3, 0.5, 0.9):
    case("broken", f"truncated-{int(share * 100)}")(
        lambda share=share: good().SerializeToString()[: int(len(good().SerializeToString()) * share)]
    )
case("broken", "noise")(lambda: np.random.default_rng(1).bytes(4_000))
case("broken", "text")(lambda: b"<!doctype html><html>not found</html>")
case("broken", "second-graph")(lambda: good().SerializeToString() + looping("Loop"))
case("empty", "no-graph")(lambda: helper.make_model(helper.make_graph([], "", [], []), producer_name="corpus").SerializeToString())


def external(location: str) -> bytes:
    """Weights in another file."""
    made = good()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return made.SerializeToString()


for where in ("../../../../etc/passwd", "/etc/shadow", "weights.bin", "/proc/self/environ"):
    case("external-data", where.strip("./").replace("/", "-"))(lambda where=where: external(where))


def foreign(domain: str, op: str) -> bytes:
    """An operator that ONNX does not define."""
    return model([helper.make_node(op, ["x"], ["y"], domain=domain, name="odd")]).SerializeToString()


for domain, op in (("com.microsoft", "Inverse"), ("evil.example", "Shell"), ("ai.onnx.contrib", "PyOp")):
    case("custom-operator", f"{domain}-{op}")(lambda domain=domain, op=op: foreign(domain, op))


@case("functions", "recursive")
def _() -> bytes:
    made = good()
    made.functions.add(name="F", domain="own").node.append(helper.make_node("F", ["a"], ["b"], domain="own"))
    return made.SerializeToString()


def looping(op: str) -> bytes:
    """A node with a graph of its own."""
    body = helper.make_graph([node("Identity", ["i"], ["o"])], "body", [port("i", 1)], [port("o", 1)])
    names = {"If": {"then_branch": body, "else_branch": body}, "Loop": {"body": body}, "Scan": {"body": body, "num_scan_inputs": 1}}
    return model([helper.make_node(op, ["x"], ["y"], name="odd", **names[op])]).SerializeToString()


for op in ("Loop", "Scan", "If"):
    case("control-flow", op.lower())(lambda op=op: looping(op))


@case("control-flow", "hidden-subgraph")
def _() -> bytes:
    body = helper.make_graph([node("Identity", ["i"], ["o"])], "body", [port("i", 1)], [port("o", 1)])
    return model([helper.make_node("Relu", ["x"], ["y"], name="odd", body=body)]).SerializeToString()


@case("too-many-nodes", "chain")
def _() -> bytes:
    chain = [node("Identity", [f"a{at}"], [f"a{at + 1}"]) for at in range(6_000)]
    return model([node("Identity", ["x"], ["a0"]), *chain, total("a6000")]).SerializeToString()


for op in ("RandomNormalLike", "RandomUniformLike", "Bernoulli"):
    case("random", op.lower())(lambda op=op: model([node(op, ["x"], ["r"]), total("r")]).SerializeToString())


def claims(*dims: int) -> bytes:
    """A tensor that claims more than it holds."""
    made = good()
    made.graph.initializer[0].ClearField("dims")
    made.graph.initializer[0].dims.extend(dims)
    return made.SerializeToString()


for dims in ((1 << 40,), (1 << 32, 1 << 32), (-1, 3), (3, 2)):
    case("tensor-shape", "x".join(map(str, dims)))(lambda dims=dims: claims(*dims))

case("huge-tensor", "constant-of-shape")(
    lambda: model([node("ConstantOfShape", ["shape"], ["c"]), total("c")], [shape(1 << 20, 1 << 20)]).SerializeToString()
)
case("huge-tensor", "expand")(lambda: model([node("Expand", ["x", "shape"], ["c"]), total("c")], [shape(1 << 30, 3)]).SerializeToString())
case("huge-tensor", "tile")(lambda: model([node("Tile", ["x", "shape"], ["c"]), total("c")], [shape(1, 1 << 31)]).SerializeToString())


@case("sparse", "sparse-initialiser")
def _() -> bytes:
    made = good()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [1 << 40]))
    return made.SerializeToString()


@case("training", "training-graph")
def _() -> bytes:
    made = good()
    made.training_info.add().algorithm.node.append(node("Identity", ["x"], ["z"]))
    return made.SerializeToString()


def renamed(name: str) -> bytes:
    """An input of that name."""
    made = good()
    made.graph.input[0].name = name
    made.graph.node[0].input[0] = name
    return made.SerializeToString()


for title, name in (("traversal", "../../etc/passwd"), ("absolute", "/etc/passwd"), ("control", "a\x1b[2J"), ("long", "n" * 300)):
    case("name", title)(lambda name=name: renamed(name))


def typed(kind: int, *dims: int | None) -> bytes:
    """An input of that type and shape."""
    made = good()
    made.graph.input[0].CopyFrom(port("x", *dims, kind=kind))
    return made.SerializeToString()


case("input", "text")(lambda: typed(TensorProto.STRING, None, 3))
case("input", "image")(lambda: typed(FLOAT, None, 3, 224, 224))
case("input", "integers")(lambda: typed(INT64, None, 3))
case("inputs", "unknown-feature")(lambda: model(column_sum(), [weights()], "a.b,c.d,e.f").SerializeToString())
case("inputs", "unnamed")(lambda: model(column_sum(), [weights()], None).SerializeToString())
case("inputs", "wrong-count")(lambda: model(column_sum(), [weights()], FEATURES[0]).SerializeToString())
case("run", "nan")(lambda: model([node("MatMul", ["x", "w"], ["l"]), node("Log", ["l"], ["y"])], [weights(value=-1.0)]).SerializeToString())
case("run", "infinite")(lambda: model([node("Exp", ["x"], ["e"]), total("e")]).SerializeToString())
case("run", "wrong-shape")(lambda: model(column_sum(), [weights(7)]).SerializeToString())
case("run", "unknown-operator")(lambda: model([node("NoSuchOperator", ["x"], ["y"])]).SerializeToString())


@case("run", "sleeper")
def _() -> bytes:
    product = [helper.make_node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"], name=f"product{at}") for at in range(40)]
    start = [node("ReduceMax", ["x"], ["s"], keepdims=0), node("ConstantOfShape", ["shape"], ["z"]), node("Add", ["z", "s"], ["m0"])]
    return model([*start, *product, total("m40")], [shape(1_500, 1_500)]).SerializeToString()


@case("run", "memory-by-input")
def _() -> bytes:
    sizes = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["i"], to=INT64), node("Abs", ["i"], ["a"])]
    grow = [node("Unsqueeze", ["a", "axis"], ["d"]), node("Concat", ["d", "d"], ["dims"], axis=0), node("ConstantOfShape", ["dims"], ["c"])]
    return model([*sizes, *grow, total("c")], [numpy_helper.from_array(np.zeros(1, np.int64), "axis")]).SerializeToString()


@case("run", "tree-cycle")
def _() -> bytes:
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        name="tree",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 1, 0],
        nodes_values=[0.5, 0.5, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[1, 0, 0],
        target_treeids=[0],
        target_nodeids=[2],
        target_ids=[0],
        target_weights=[1.0],
    )
    return model([tree]).SerializeToString()


def build(folder: Path) -> Iterator[tuple[str, str]]:
    """Writes every case; its file and its guard."""
    for at, (guard, name, make) in enumerate(CASES):
        safe = "".join(letter if letter.isalnum() else "-" for letter in name.lower())[:40]
        file = f"h{at:02}-{safe}.onnx"
        (folder / file).write_bytes(make())
        yield file, guard


def main() -> None:
    """Writes the corpus, a harmless model beside it, and what is expected."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    expected = dict(build(folder))
    (folder / "harmless.onnx").write_bytes(good().SerializeToString())
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(f"{len(expected)} cases of {len(set(expected.values()))} classes")


if __name__ == "__main__":
    main()
