"""Models that do harm where nothing stops them: they take memory or time without end, score a row twice differently, or give no number.
Cases leave: the guard that must stop each, its class, the harm that it does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hostile_broken import FEATURES, FLOAT, INT64, Case, column_sum, good, model, node, port, shape, total, weights

CASES: list[Case] = []


def harmful(kind: str, guard: str, harm: str, name: str, build: Callable[[], ModelProto | bytes]) -> None:
    """Adds a case."""

    def made() -> bytes:
        built = build()
        return built if isinstance(built, bytes) else built.SerializeToString()

    CASES.append(Case(guard, name, made, kind, harm))


def constant(name: str, value: object, kind: type = np.int64) -> TensorProto:
    """A constant tensor."""
    return numpy_helper.from_array(np.array(value, kind), name)


# Size: the file itself.
def padded(field: str) -> ModelProto:
    """A model with 65 MiB of nothing."""
    made = good()
    if field == "doc":
        made.doc_string = "x" * (65 << 20)
    else:
        helper.set_model_props(made, {"telltale.inputs": ",".join(FEATURES), "padding": "x" * (65 << 20)})
    return made


harmful("size", "too-large", "memory", "padded-doc", lambda: padded("doc"))
harmful("size", "too-large", "memory", "padded-metadata", lambda: padded("metadata"))
harmful("size", "too-large", "memory", "weights", lambda: model(column_sum(), [weights(3, 6_000_000)]))


# External data: another file's bytes would become weights. ONNX Runtime itself reads none where it is given bytes and no path, so these
# count for no harm.
def external(location: str) -> ModelProto:
    """Weights in another file."""
    made = good()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return made


for where in ("weights.bin", "./weights.bin", "../../../../etc/passwd", "/etc/shadow", "/proc/self/environ"):
    title = f"external-{where.strip('./').replace('/', '-')}-{len(where)}"
    harmful("", "external-data", "", title, lambda where=where: external(where))


# Operators that ONNX does not define: whatever is linked in runs.
def foreign(op: str, inputs: list[str], tensors: list[TensorProto]) -> ModelProto:
    """An operator of ONNX Runtime's own."""
    made = model([helper.make_node(op, inputs, ["c"], domain="com.microsoft", name="odd"), total("c")], tensors)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


BOUNDS = [constant("a", 0.0, np.float32), constant("b", float(1 << 29), np.float32), constant("d", 1.0, np.float32)]
harmful("custom operator", "custom-operator", "memory", "own-range", lambda: foreign("Range", ["a", "b", "d"], BOUNDS))
harmful(
    "custom operator",
    "custom-operator",
    "memory",
    "own-pad",
    lambda: foreign("Pad", ["x", "p"], [constant("p", [0, 0, 0, 1 << 29])]),
)


# Functions: each calls the next several times, which ONNX Runtime writes out.
def laughs(depth: int, width: int) -> ModelProto:
    """As many nodes as width to the power of depth."""
    made = good()
    made.graph.node[0].CopyFrom(helper.make_node("F0", ["x"], ["y"], domain="own", name="odd"))
    del made.graph.initializer[:]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made.opset_import.append(opsets[1])
    for at in range(depth):
        last = at == depth - 1
        names = ["a", *(f"m{step}" for step in range(1, width)), "c"]
        calls = [helper.make_node(f"F{at + 1}", [given], [taken], domain="own") for given, taken in itertools.pairwise(names)]
        nodes = [helper.make_node("Abs", ["a"], ["c"])] if last else calls
        made.functions.append(helper.make_function("own", f"F{at}", ["a"], ["c"], nodes, opsets))
    return made


for depth, width in ((24, 2), (15, 3), (9, 8)):
    harmful("functions", "functions", "time", f"laughs-{width}-to-{depth}", lambda depth=depth, width=width: laughs(depth, width))


# Loops without end.
def endless(trips: int | None, inner: bool = False) -> ModelProto:
    """A loop of that many turns, or until a condition that never comes."""
    told, kept = helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("c2", TensorProto.BOOL, [])
    turn, value, after = helper.make_tensor_value_info("i", INT64, []), port("v", None, 1), port("v2", None, 1)
    work: list[NodeProto] = [node("Add", ["v", "v"], ["v2"])]
    if inner:
        went = helper.make_tensor_value_info("c3", TensorProto.BOOL, [])
        inside = [
            helper.make_tensor_value_info("i1", INT64, []),
            helper.make_tensor_value_info("c1", TensorProto.BOOL, []),
            port("v1", None, 1),
        ]
        step = [helper.make_node("Identity", ["c1"], ["c3"], name="on"), helper.make_node("Add", ["v1", "v1"], ["v3"], name="twice")]
        once = helper.make_graph(step, "inner", inside, [went, port("v3", None, 1)])
        work = [helper.make_node("Loop", ["trips", "yes", "v"], ["v2"], name="inner", body=once)]
    body = helper.make_graph([node("Identity", ["c"], ["c2"]), *work], "body", [turn, told, value], [kept, after])
    first = node("ReduceSum", ["x"], ["s"], keepdims=1, noop_with_empty_axes=0)
    loop = helper.make_node("Loop", ["trips" if trips else "", "yes", "s"], ["y"], name="odd", body=body)
    tensors = [constant("yes", True, np.bool_), *([constant("trips", trips)] if trips else [])]
    return model([first, loop], tensors)


harmful("loop", "control-flow", "time", "loop-of-a-trillion", lambda: endless(1 << 40))
harmful("loop", "control-flow", "time", "loop-for-ever", lambda: endless(None))
harmful("loop", "control-flow", "time", "loop-in-a-loop", lambda: endless(1 << 20, inner=True))
# Protobuf merges the two graphs: who reads only the first sees no loop.
harmful("merged graphs", "broken", "time", "second-graph", lambda: good_first(endless(1 << 40)))


def branch(op_trips: int | None) -> ModelProto:
    """An endless loop in both branches of a condition."""
    made = endless(op_trips)
    loop = made.graph.node[1]
    told = helper.make_tensor_value_info("y1", FLOAT, None)
    parts = []
    for name in ("then", "otherwise"):
        inner = NodeProto()
        inner.CopyFrom(loop)
        inner.name, inner.output[0] = f"loop-{name}", "y1"
        parts.append(helper.make_graph([inner], name, [], [told]))
    made.graph.node[1].CopyFrom(helper.make_node("If", ["yes"], ["y"], name="odd", then_branch=parts[0], else_branch=parts[1]))
    return made


harmful("loop", "control-flow", "time", "loop-in-a-branch", lambda: branch(None))
harmful("merged graphs", "broken", "time", "second-graph-for-ever", lambda: good_first(endless(None)))


def good_first(hidden: ModelProto) -> bytes:
    """A graph of two parts, of which the second has the loop."""
    first, second = good(), ModelProto()
    del first.graph.node[:], first.graph.initializer[:]
    second.graph.CopyFrom(hidden.graph)
    del second.graph.input[:], second.graph.output[:]
    return first.SerializeToString() + second.SerializeToString()


# Nodes: what ONNX Runtime makes of so many before it scores a row.
def chain(length: int, op: str) -> ModelProto:
    """One node after the other."""
    nodes = [helper.make_node(op if at % 2 else "Neg", [f"a{at}"], [f"a{at + 1}"], name=str(at)) for at in range(length)]
    return model([node("Identity", ["x"], ["a0"]), *nodes, total(f"a{length}")])


for op in ("Abs", "Relu", "Ceil"):
    harmful("nodes", "too-many-nodes", "time", f"chain-{op.lower()}", lambda op=op: chain(60_000, op))


# Randomness: no replay can repeat it.
def random(op: str) -> ModelProto:
    """A score that depends on chance."""
    like = op in ("RandomNormalLike", "RandomUniformLike")
    made = [node(op, ["x"], ["r"])] if like else [node(op, [], ["r"], shape=[1, 64])]
    if op == "Bernoulli":
        made = [node("RandomUniform", [], ["u"], shape=[1, 64]), node("Bernoulli", ["u"], ["r"])]
    if op == "Multinomial":
        made = [node(op, ["x"], ["i"], sample_size=64), node("Cast", ["i"], ["r"], to=FLOAT)]
    return model([*made, total("r")])


for op in ("RandomNormalLike", "RandomUniformLike", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"):
    harmful("random", "random", "random", op.lower(), lambda op=op: random(op))

# Shapes: a few bytes say how large a tensor becomes.
SHAPES: dict[str, tuple[list[NodeProto], list[TensorProto]]] = {
    "constant-of-shape": ([node("ConstantOfShape", ["shape"], ["c"])], [shape(1 << 14, 1 << 15)]),
    "expand": ([node("Expand", ["x", "shape"], ["c"])], [shape(1 << 27, 3)]),
    "tile": ([node("Tile", ["x", "shape"], ["c"])], [shape(1, 1 << 27)]),
    "pad": ([node("Pad", ["x", "shape"], ["c"])], [shape(0, 0, 0, 1 << 29)]),
    "resize": ([node("Resize", ["x", "", "", "shape"], ["c"])], [shape(1 << 14, 1 << 15)]),
    "one-hot": (
        [node("Cast", ["x"], ["i"], to=INT64), node("OneHot", ["i", "shape", "pair"], ["c"])],
        [constant("shape", 1 << 28), constant("pair", [0.0, 1.0], np.float32)],
    ),
}
for title, (nodes, tensors) in SHAPES.items():
    harmful("tensor shape", "huge-tensor", "memory", title, lambda nodes=nodes, tensors=tensors: model([*nodes, total("c")], tensors))


# Initialisers that are written out.
def sparse(elements: int) -> ModelProto:
    """One number, which becomes a tensor of that many elements."""
    made = good()
    values, places = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.zeros(1, np.int64))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [elements]))
    made.graph.node[0].output[0] = "y0"
    made.graph.node.extend([helper.make_node("ReduceSum", ["s"], ["z"], name="z", keepdims=0), node("Add", ["y0", "z"], ["y"])])
    return made


for elements in (1 << 28, 1 << 29):
    harmful("initialiser", "sparse", "memory", f"sparse-{elements}", lambda elements=elements: sparse(elements))

# No number comes out.
NOTHING: dict[str, list[NodeProto]] = {
    "nan": [node("Abs", ["x"], ["a"]), node("Neg", ["a"], ["n"]), node("Sqrt", ["n"], ["l"])],
    "zero-by-zero": [node("Sub", ["x", "x"], ["z"]), node("Div", ["z", "z"], ["l"])],
    "logarithm": [node("Abs", ["x"], ["a"]), node("Neg", ["a"], ["n"]), node("Log", ["n"], ["l"])],
    "infinite": [node("Exp", ["x"], ["l"])],
    "infinity-less-infinity": [node("Exp", ["x"], ["e"]), node("Mul", ["e", "e"], ["f"]), node("Sub", ["f", "e"], ["l"])],
}
for title, nodes in NOTHING.items():
    harmful("no number", "run", "nan", title, lambda nodes=nodes: model([*nodes, total("l")]))


# Sleepers: the file is small, the work is not.
def sleeper(size: int, steps: int) -> ModelProto:
    """That many products of square matrices."""
    product = [helper.make_node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"], name=f"product{at}") for at in range(steps)]
    start = [node("ReduceMax", ["x"], ["s"], keepdims=0), node("ConstantOfShape", ["shape"], ["z"]), node("Add", ["z", "s"], ["m0"])]
    return model([*start, *product, total(f"m{steps}")], [shape(size, size)])


for size, steps in ((1_500, 40), (1_000, 150), (600, 900)):
    harmful("sleeper", "run", "time", f"sleeper-{size}", lambda size=size, steps=steps: sleeper(size, steps))

# What a caller sends says how much memory is taken.
COUNT = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["i"], to=INT64), node("Abs", ["i"], ["a"])]
SQUARE = [node("Unsqueeze", ["a", "axis"], ["d"]), node("Concat", ["d", "d"], ["dims"], axis=0)]
GROWING: dict[str, list[NodeProto]] = {
    "constant": [*COUNT, *SQUARE, node("ConstantOfShape", ["dims"], ["c"])],
    "expand": [*COUNT, *SQUARE, node("ReduceMin", ["x"], ["one"], keepdims=0), node("Expand", ["one", "dims"], ["c"])],
    "range": [
        *COUNT,
        node("Mul", ["a", "a"], ["n"]),
        node("Range", ["zero", "n", "step"], ["r"]),
        helper.make_node("Cast", ["r"], ["c"], name="back", to=FLOAT),
    ],
}
for title, nodes in GROWING.items():
    tensors = [constant("axis", [0]), constant("zero", 0), constant("step", 1)]
    harmful("memory by input", "run", "memory", f"grows-{title}", lambda nodes=nodes, tensors=tensors: model([*nodes, total("c")], tensors))
