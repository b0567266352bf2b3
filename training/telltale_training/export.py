"""Boosted trees to ONNX: LightGBM's trees enter, one TreeEnsembleRegressor and a sigmoid leave.

Written by hand because converters round thresholds to the nearest float32, which moves rows to the other side of a split, and wrap the
result in maps that no gateway can afford.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper

OPSET = 21
ML_OPSET = 3
IR_VERSION = 10
INPUT, OUTPUT = "features", "probability"


def round_down(value: float) -> float:
    """The largest float32 that is not above a float64: a float32 row then passes the same way."""
    narrow = np.float32(value)
    if float(narrow) > value:
        narrow = np.nextafter(narrow, np.float32(-np.inf), dtype=np.float32)
    return float(narrow)


@dataclass
class Ensemble:
    """The attribute lists of a TreeEnsembleRegressor."""

    nodes: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
        }
    )
    targets: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in ("treeids", "nodeids", "ids", "weights")})

    def add(self, tree: int, root: dict[str, Any]) -> None:
        """Adds a tree of LightGBM's `dump_model`."""
        waiting = [(0, root)]
        count = 1
        while waiting:
            number, node = waiting.pop(0)
            leaf = "leaf_value" in node and "split_feature" not in node
            below, above = (0, 0) if leaf else (count, count + 1)
            row = (
                tree,
                number,
                0 if leaf else node["split_feature"],
                "LEAF" if leaf else "BRANCH_LEQ",
                0.0 if leaf else round_down(node["threshold"]),
                below,
                above,
            )
            for column, value in zip(self.nodes.values(), row, strict=True):
                column.append(value)
            if leaf:
                for column, value in zip(self.targets.values(), (tree, number, 0, node["leaf_value"]), strict=True):
                    column.append(value)
                continue
            if node["decision_type"] != "<=":
                raise ValueError(f"tree {tree} decides by `{node['decision_type']}`; only `<=` is exported")
            count += 2
            waiting += [(below, node["left_child"]), (above, node["right_child"])]


def boosted(dump: dict[str, Any], inputs: int) -> ModelProto:
    """The ONNX model of LightGBM's `dump_model`: float32 [rows, inputs] → probability [rows, 1]."""
    ensemble = Ensemble()
    for number, tree in enumerate(dump["tree_info"]):
        ensemble.add(number, tree["tree_structure"])
    attributes: dict[str, Any] = {f"nodes_{name}": values for name, values in ensemble.nodes.items()}
    attributes |= {f"target_{name}": values for name, values in ensemble.targets.items()}
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        ["margin"],
        domain="ai.onnx.ml",
        name="trees",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        **attributes,
    )
    sigmoid = helper.make_node("Sigmoid", ["margin"], [OUTPUT], name="sigmoid")
    return finished([trees, sigmoid], inputs, helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1]))


def finished(nodes: list[Any], inputs: int, *outputs: Any) -> ModelProto:  # noqa: ANN401 (onnx has no types)
    """A checked model of these nodes over one float32 matrix."""
    source = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, inputs])
    graph = helper.make_graph(nodes, "telltale", [source], list(outputs))
    model = helper.make_model(
        graph,
        producer_name="telltale-training",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    checker.check_model(model, full_check=True)
    return model
