"""Sets the native detectors beside scikit-learn's isolation forest on the tabular sets of `$TELLTALE_DATA/adbench/dev`.

Enters: the sets, read where they are, and the built program `detectors`, which fits and scores. Leaves: `target/check/adbench.json`.

Both sides get the same float32 rows, as they are: nothing is scaled. Of a set with more than 20,000 rows both get the same random 20,000;
of one with more than 255 inputs, as many as a native forest has, the same 255 whose values vary most. Each detector is fitted without
labels on all of these rows and scores them; the figure is the area under the receiver operating characteristic (AUC).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest

ROOT = Path(__file__).resolve().parent.parent
DETECTORS = ROOT / "target" / "release" / "detectors"
OUT = ROOT / "target" / "check" / "adbench.json"
SEEDS = (1, 2, 3)
MOST_ROWS, MOST_INPUTS = 20_000, 255
TREES, SAMPLE = 100, 256
Rows = NDArray[np.float32]
Scores = NDArray[np.float64]


def read(path: Path) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows and which of them are anomalies, cut to what both sides get."""
    with np.load(path, allow_pickle=False) as file:
        values, labels = np.asarray(file["X"], np.float64), np.asarray(file["y"]).ravel() == 1
    if len(values) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(values))[:MOST_ROWS])
        values, labels = values[chosen], labels[chosen]
    if values.shape[1] > MOST_INPUTS:
        values = values[:, np.sort(np.argsort(-values.var(axis=0), kind="stable")[:MOST_INPUTS])]
    return values.astype(np.float32), labels


def auc(scores: Scores, labels: NDArray[np.bool_]) -> float:
    """The share of pairs of an anomaly and an ordinary row in which the anomaly scores higher; a tie counts half (Mann, Whitney 1947)."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return float((rankdata(scores)[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reference(rows: Rows, seed: int) -> Scores:
    """What scikit-learn's isolation forest says, higher is more unusual."""
    model = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, len(rows)), random_state=seed, n_jobs=1)
    return -np.asarray(model.fit(rows).score_samples(rows), np.float64)


def native(rows: Rows, detectors: Path) -> dict[str, dict[int, Scores]]:
    """What each native kind says for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        given, said = Path(folder) / "rows.parquet", Path(folder) / "scores.parquet"
        columns = {f"x{at:03}": pa.array(rows[:, at].astype(np.float64)) for at in range(rows.shape[1])}
        pq.write_table(pa.table(columns), given)
        subprocess.run([str(detectors), str(given), str(said), *map(str, SEEDS)], check=True)
        table = pq.read_table(said)
        found: dict[str, dict[int, Scores]] = {}
        for name in table.column_names:
            kind, seed = name.rsplit(".", 1)
            found.setdefault(kind, {})[int(seed)] = table.column(name).to_numpy()
        return found


def combined(found: dict[str, dict[int, Scores]]) -> dict[str, dict[int, Scores]]:
    """Every combination of two or more kinds: the mean of their ranks, since their scores have no common scale."""
    ranks = {kind: {seed: rankdata(scores) / len(scores) for seed, scores in by_seed.items()} for kind, by_seed in found.items()}
    names = sorted(ranks)
    several = (some for count in range(2, len(names) + 1) for some in combinations(names, count))
    return {" + ".join(some): {seed: np.mean([ranks[kind][seed] for kind in some], axis=0) for seed in SEEDS} for some in several}


def measure(path: Path, detectors: Path) -> dict[str, Any]:
    """One set: its size and the AUC of everything, one figure a seed."""
    rows, labels = read(path)
    found = native(rows, detectors)
    everything = {"scikit-learn": {seed: reference(rows, seed) for seed in SEEDS}} | found | combined(found)
    aucs = {name: [auc(by_seed[seed], labels) for seed in SEEDS] for name, by_seed in everything.items()}
    return {"set": path.stem, "rows": len(rows), "inputs": rows.shape[1], "anomalies": int(labels.sum()), "auc": aucs}


def summary(sets: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over sets and seeds, and in how many sets the native forest is not below scikit-learn's."""
    names = list(sets[0]["auc"])
    mean = {name: float(np.mean([found["auc"][name] for found in sets])) for name in names}
    not_below = sum(np.mean(found["auc"]["forest"]) >= np.mean(found["auc"]["scikit-learn"]) for found in sets)
    several = {name: value for name, value in mean.items() if " + " in name}
    return {
        "sets": sets,
        "seeds": list(SEEDS),
        "mean": mean,
        "forest_not_below": int(not_below),
        "best_combination": max(several, key=several.__getitem__) if several else None,
    }


def main() -> int:
    """Measures every set; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = ROOT / os.environ.get("TELLTALE_DATA", "../shared/data") / "adbench" / "dev"
    parser.add_argument("--data", type=Path, default=data, help="folder of the sets")
    parser.add_argument("--detectors", type=Path, default=DETECTORS, help="the built program")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    paths = sorted(arguments.data.glob("*.npz"))
    if not paths:
        print(f"adbench: no set below {arguments.data}: name the folder with --data, or TELLTALE_DATA", file=sys.stderr)
        return 1
    begun = time.monotonic()
    sets = []
    for path in paths:
        sets.append(measure(path, arguments.detectors))
        told = ", ".join(f"{name} {np.mean(value):.3f}" for name, value in sets[-1]["auc"].items() if " + " not in name)
        print(f"{time.monotonic() - begun:6.1f} s  {path.stem:<22} {told}", flush=True)
    found = summary(sets)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"mean of {len(sets)} sets: " + ", ".join(f"{name} {value:.4f}" for name, value in found["mean"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
