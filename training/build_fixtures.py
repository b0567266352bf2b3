"""Builds models/fixtures: small ONNX models that the Rust tests load. Run it again after a change of the exporter:
`target/venv/bin/python training/build_fixtures.py`. The same bytes come out on one CPU.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper

from telltale_training import boosted, export, frame, generated
from telltale_training.publish import publish

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "models" / "fixtures"


def classifier() -> bytes:
    """A linear classifier with the two outputs that sklearn exports have: label and both probabilities."""
    node = helper.make_node(
        "LinearClassifier",
        [export.INPUT],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        name="linear",
        coefficients=[-1.0, -2.0, 1.0, 2.0],
        intercepts=[0.5, -0.5],
        classlabels_ints=[0, 1],
        post_transform="SOFTMAX",
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
    ]
    model: bytes = export.finished([node], 2, *outputs).SerializeToString(deterministic=True)
    return model


def main() -> None:
    """Builds them afresh; `exports` is built by build_exports.py."""
    shutil.rmtree(FIXTURES / "repository", ignore_errors=True)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / "classifier.onnx").write_bytes(classifier())
    config = tomllib.loads((ROOT / "training" / "config.toml").read_text())
    settings = replace(boosted.Settings.of(config["boosted"]), name="boosted", trees=30, leaves=12)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        generated.write(path, 1, 12_000)
        rows = frame.read([path])
    publish(FIXTURES / "repository", settings.name, boosted.train(rows, settings))
    # What the trainer itself says of rows the model never saw: the Rust side must agree within 1e-5.
    learn, _, test = rows.split((0.6, 0.2))
    booster = boosted.fit(boosted.narrow(learn.values, settings.missing), np.isin(learn.labels, settings.positive), settings)
    some = test.values[:400]
    expected = booster.predict(boosted.narrow(some, settings.missing).astype(np.float64), num_threads=1)
    columns = {name: pa.array(some[:, at], from_pandas=True) for at, name in enumerate(rows.names)}
    pq.write_table(pa.table({**columns, "raw": expected}), FIXTURES / "parity.parquet")


if __name__ == "__main__":
    main()
