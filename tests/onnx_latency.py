"""What a row costs in Python's ONNX Runtime: `onnx_latency.py --batches 1,16 ROWS.parquet MODEL.onnx…` prints JSON.

For each model, by its file's name, and each number of rows a run: microseconds a row, the middle one of several runs over all rows. One
thread, one session; only the output that is the score is asked for, so that nothing is paid twice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
from numpy.typing import NDArray

RUNS = 5
Rows = NDArray[np.float32]


def filled(table: Any, props: dict[str, str]) -> Rows:  # noqa: ANN401 (pyarrow has no types)
    """The rows in the model's order, with what its author says of missing values."""
    names = props["telltale.inputs"].split(",")
    rows = np.stack([table.column(name).to_numpy() for name in names], axis=1).astype(np.float32)
    match props["telltale.missing"]:
        case "nan":
            return rows
        case "usual":
            return np.where(np.isnan(rows), np.array(props["telltale.usual"].split(","), np.float32), rows)
        case number:
            return np.where(np.isnan(rows), np.float32(number), rows)


def session(model: Path) -> ort.InferenceSession:
    """As the scorer runs it: one thread, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def per_row(running: ort.InferenceSession, rows: Rows, batch: int) -> float:
    """Microseconds a row."""
    name, output = running.get_inputs()[0].name, running.get_outputs()[-1].name
    parts = [np.ascontiguousarray(rows[at : at + batch]) for at in range(0, len(rows) // batch * batch, batch)]

    def run() -> float:
        begun = time.perf_counter()
        for part in parts:
            running.run([output], {name: part})
        return (time.perf_counter() - begun) * 1e6 / (len(parts) * batch)

    run()
    return statistics.median(run() for _ in range(RUNS))


def main() -> None:
    """Measures every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("rows", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    arguments = parser.parse_args()
    table, found = pq.read_table(arguments.rows), {}
    for model in arguments.models:
        running = session(model)
        rows = filled(table, running.get_modelmeta().custom_metadata_map)
        found[model.stem] = {int(batch): per_row(running, rows, int(batch)) for batch in arguments.batches.split(",")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
