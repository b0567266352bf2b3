"""Builds models/fixtures/exports: models as data scientists export them, with what their Python libraries say of 1,000 rows.

Needs `pip install -r training/requirements-exports.txt`; run it as `python training/build_exports.py`. The tests read only what it wrote:
they need none of these libraries.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import onnxmltools
import pyarrow as pa
import pyarrow.parquet as pq
import skl2onnx
import xgboost as xgb
from numpy.typing import NDArray
from onnxmltools.convert.common import data_types as onnxmltools_types
from skl2onnx.common import data_types
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from export_rows import NAMES, ROWS, SEED, Rows, filled, made, usual

FOLDER = Path(__file__).parent.parent / "models" / "fixtures" / "exports"
OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass
class Export:
    """An exported model and what its library says of the rows."""

    model: onnx.ModelProto
    expected: NDArray[np.float64]
    missing: str


def matrix(kind: type = data_types.FloatTensorType) -> list[tuple[str, Any]]:
    """One input for all features."""
    return [("x", kind([None, len(NAMES)]))]


def sklearn(model: object, inputs: list[tuple[str, Any]], **options: object) -> onnx.ModelProto:
    """As skl2onnx exports it."""
    return skl2onnx.to_onnx(model, initial_types=inputs, target_opset=OPSETS, options={id(model): options} if options else None)


def isolation_forest(learn: Rows, _: NDArray[np.int64], rows: Rows) -> Export:
    """Label and decision score, of which lower is more unusual."""
    model = IsolationForest(n_estimators=40, max_samples=128, random_state=SEED).fit(filled(learn, np.float32(0)))
    return Export(sklearn(model, matrix()), -model.decision_function(filled(rows, np.float32(0))), "0")


def random_forest(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """Label and a ZipMap."""
    model = RandomForestClassifier(n_estimators=30, max_depth=7, random_state=SEED).fit(filled(learn, np.float32(0)), attack)
    return Export(sklearn(model, matrix()), model.predict_proba(filled(rows, np.float32(0)))[:, 1], "0")


def hist_gradient_boosting(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """Label and a matrix of probabilities; takes missing values."""
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=SEED).fit(learn, attack)
    return Export(sklearn(model, matrix(), zipmap=False), model.predict_proba(rows)[:, 1], "nan")


def scaled_network(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """A pipeline of scaling and a small neural network."""
    middle = usual(learn)
    network = MLPClassifier(hidden_layer_sizes=(16, 8), max_iter=200, random_state=SEED)
    model = make_pipeline(StandardScaler(), network).fit(filled(learn, middle), attack)
    return Export(sklearn(model, matrix(), zipmap=False), model.predict_proba(filled(rows, middle))[:, 1], "usual")


def named_columns(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """One double input a feature, in another order than the rows."""
    middle = usual(learn)
    turned, asked = (filled(part, middle).astype(np.float64)[:, ::-1] for part in (learn, rows))
    everything = list(range(len(NAMES)))
    model = make_pipeline(make_column_transformer((StandardScaler(), everything)), LogisticRegression()).fit(turned, attack)
    inputs = [(name, data_types.DoubleTensorType([None, 1])) for name in reversed(NAMES)]
    return Export(sklearn(model, inputs, zipmap=False), model.predict_proba(asked)[:, 1], "usual")


def lightgbm(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """Label and a ZipMap; takes missing values."""
    model = lgb.LGBMClassifier(n_estimators=40, num_leaves=15, random_state=SEED, n_jobs=1, verbosity=-1).fit(learn, attack)
    inputs = matrix(onnxmltools_types.FloatTensorType)
    exported = onnxmltools.convert_lightgbm(model, initial_types=inputs, target_opset=15)
    return Export(exported, np.asarray(model.predict_proba(rows))[:, 1], "nan")


def xgboost(learn: Rows, attack: NDArray[np.int64], rows: Rows) -> Export:
    """Label and a matrix of probabilities; takes missing values."""
    model = xgb.XGBClassifier(n_estimators=40, max_depth=4, random_state=SEED, n_jobs=1).fit(learn, attack)
    inputs = matrix(onnxmltools_types.FloatTensorType)
    exported = onnxmltools.convert_xgboost(model, initial_types=inputs, target_opset=15)
    return Export(exported, model.predict_proba(rows)[:, 1].astype(np.float64), "nan")


def near_a_split(model: onnx.ModelProto, rows: Rows) -> int:
    """Rows with a value within 1 ulp of a threshold of a tree: there float32 may decide otherwise than float64."""
    near = np.zeros(len(rows), bool)
    for node in model.graph.node:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for feature, value, mode in zip(found["nodes_featureids"], found["nodes_values"], found["nodes_modes"], strict=True):
            if mode != b"LEAF":
                threshold = np.float32(value)
                near |= np.abs(rows[:, feature] - threshold) <= np.spacing(np.abs(threshold))
    return int(near.sum())


def main() -> None:
    """Builds all of them afresh."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (learn, attack), (rows, _) = made(SEED, 4_000), made(SEED + 1, ROWS)
    columns = {name: pa.array(rows[:, at].astype(np.float64), from_pandas=True) for at, name in enumerate(NAMES)}
    near = {}
    for build in (isolation_forest, random_forest, hist_gradient_boosting, scaled_network, named_columns, lightgbm, xgboost):
        name, export = build.__name__, build(learn, attack, rows)
        props = {"telltale.missing": export.missing, "telltale.usual": ",".join(str(float(value)) for value in usual(learn))}
        if len(export.model.graph.input) == 1:
            props["telltale.inputs"] = ",".join(NAMES)
        else:
            props["telltale.usual"] = ",".join(str(float(value)) for value in reversed(usual(learn)))
        onnx.helper.set_model_props(export.model, props)
        (FOLDER / f"{name}.onnx").write_bytes(export.model.SerializeToString(deterministic=True))
        columns[f"expected.{name}"] = pa.array(export.expected.astype(np.float64))
        near[name] = near_a_split(export.model, rows)
    pq.write_table(pa.table(columns), FOLDER / "rows.parquet")
    (FOLDER / "near_a_split.json").write_text(json.dumps(near, indent=1) + "\n", encoding="utf-8")
    print(near)


if __name__ == "__main__":
    main()
