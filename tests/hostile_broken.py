"""Files that are broken, wrong or no model at all, and what the whole corpus is made with: bytes and the guard that must stop them leave.

Each is refused for its own reason; in a worker without guards they do no harm, but for what `hostile_harm.py` adds.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
FEATURES = ("address.requests_1m", "address.users_failed_10m", "session.objects_10m")


class Case(NamedTuple):
    """One file: what must stop it, and what it does where nothing does."""

    guard: str
    name: str
    build: Callable[[], bytes]
    kind: str = ""
    harm: str = ""


CASES: list[Case] = []


def case(guard: str, name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Adds a case that this guard must stop."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES.append(Case(guard, name, build))
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


def foreign(domain: str, op: str) -> bytes:
    """An operator that ONNX does not define."""
    return model([helper.make_node(op, ["x"], ["y"], domain=domain, name="odd")]).SerializeToString()


for domain, op in (("com.microsoft", "Inverse"), ("evil.example", "Shell"), ("ai.onnx.contrib", "PyOp")):
    case("custom-operator", f"{domain}-{op}")(lambda domain=domain, op=op: foreign(domain, op))


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


def claims(*dims: int) -> bytes:
    """A tensor that claims more than it holds."""
    made = good()
    made.graph.initializer[0].ClearField("dims")
    made.graph.initializer[0].dims.extend(dims)
    return made.SerializeToString()


for dims in ((1 << 40,), (1 << 32, 1 << 32), (-1, 3), (3, 2)):
    case("tensor-shape", "x".join(map(str, dims)))(lambda dims=dims: claims(*dims))


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
case("run", "wrong-shape")(lambda: model(column_sum(), [weights(7)]).SerializeToString())
case("run", "unknown-operator")(lambda: model([node("NoSuchOperator", ["x"], ["y"])]).SerializeToString())


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


def crowded(count: int) -> bytes:
    """So many empty weights that nothing uses."""
    made = good()
    made.graph.initializer.extend(numpy_helper.from_array(np.empty(0, np.float32), f"e{at}") for at in range(count))
    return made.SerializeToString()


def deep(dims: int, last: int = 1) -> bytes:
    """A weight of that many dimensions, the last of which may claim more than there is."""
    made = good()
    made.graph.initializer.append(TensorProto(name="deep", data_type=FLOAT, dims=[1] * dims + [last], raw_data=bytes(4)))
    return made.SerializeToString()


def described(count: int) -> bytes:
    """A graph that says much of values that it does not have."""
    made = good()
    made.graph.value_info.extend(port(f"v{at}", 1) for at in range(count))
    return made.SerializeToString()


case("too-many-tensors", "empty-weights")(lambda: crowded(50_000))
case("dimensions", "thousand")(lambda: deep(1_000))
case("dimensions", "hidden-size")(lambda: deep(65, 1 << 40))
case("too-many-names", "values")(lambda: described(150_000))


def sized(made: list[NodeProto]) -> bytes:
    """A tensor as large as `shape` says, which these nodes make."""
    return model([*made, node("ConstantOfShape", ["shape"], ["c"]), total("c")]).SerializeToString()


case("huge-tensor", "value-int")(
    lambda: sized([node("Constant", [], ["shape0"], value_int=1 << 33), node("Flatten", ["shape0"], ["shape"])])
)
case("huge-tensor", "value-ints")(lambda: sized([node("Constant", [], ["shape"], value_ints=[1 << 20, 1 << 20])]))
case("huge-tensor", "value-floats-cast")(
    lambda: sized([node("Constant", [], ["f"], value_floats=[1e6, 1e6]), node("Cast", ["f"], ["shape"], to=INT64)])
)
case("huge-tensor", "halves-joined")(
    lambda: sized([node("Constant", [], ["half"], value_ints=[1 << 20]), node("Concat", ["half", "half"], ["shape"], axis=0)])
)
case("huge-tensor", "tile-on-tile")(
    lambda: model(
        [*(node("Tile", [f"t{at}" if at else "x", "shape"], [f"t{at + 1}"]) for at in range(3)), total("t3")], [shape(1, 1_000)]
    ).SerializeToString()
)
