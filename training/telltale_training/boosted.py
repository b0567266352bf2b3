"""The boosted model: a feature frame and its settings enter, a published, calibrated ONNX version leaves.

Cut by time: 60 % to train on, 20 % to calibrate on, 20 % to report on. Same rows, settings and seed give the same bytes on one CPU.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import onnxruntime as ort

from telltale_training import calibrate, export, metrics, profile
from telltale_training.publish import Draft, Input

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from telltale_training.frame import Frame

GOLDEN_ROWS = 64
AGREE = 1e-5


@dataclass(frozen=True)
class Settings:
    """The `[boosted]` section of config.toml."""

    name: str
    description: str
    licence: str
    seed: int
    trees: int
    leaves: int
    depth: int
    learning_rate: float
    rows_a_leaf: int
    prior: float
    missing: float
    positive: list[str]

    @staticmethod
    def of(section: dict[str, Any]) -> Settings:
        """Checked settings; raises ValueError that names an unknown or absent key."""
        known = {one.name for one in fields(Settings)}
        if wrong := sorted(section.keys() ^ known):
            raise ValueError(f"[boosted]: unknown or absent keys {', '.join(wrong)}; all of these are needed: {', '.join(sorted(known))}")
        settings = Settings(**section)
        if not 0 < settings.prior < 1:
            raise ValueError(f"[boosted]: prior = {settings.prior}, allowed is a share between 0 and 1")
        return settings


def weights(positive: NDArray[np.bool_], details: NDArray[np.str_]) -> NDArray[np.float64]:
    """One a row; abuse of a kind with more rows than the mean kind weighs less, so that floods do not drown what is quiet."""
    kinds, of, rows = np.unique(np.where(positive, details, ""), return_inverse=True, return_counts=True)
    mean = float(positive.sum()) / max(1, len(kinds) - int("" in kinds))
    return np.where(positive, np.minimum(1.0, mean / rows[of]), 1.0)


def narrow(values: NDArray[np.float64], missing: float) -> NDArray[np.float32]:
    """The float32 rows that the model reads in service."""
    limit = float(np.finfo(np.float32).max)
    filled = np.where(np.isnan(values), missing, values)
    return np.clip(filled, -limit, limit).astype(np.float32)


def fit(
    rows: NDArray[np.float32], positive: NDArray[np.bool_], settings: Settings, weight: NDArray[np.float64] | None = None
) -> lgb.Booster:
    """Fits the trees on one thread, so that the result depends on nothing but rows, settings and seed."""
    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "max_depth": settings.depth,
        "seed": settings.seed,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.rows_a_leaf,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "use_missing": False,
        "zero_as_missing": False,
    }
    data = lgb.Dataset(rows.astype(np.float64), label=positive.astype(np.float64), weight=weight, free_raw_data=False)
    return lgb.train(parameters, data, num_boost_round=settings.trees)


def run(model: bytes, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The model's probabilities by ONNX Runtime, one row at a time as in service."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.array([float(session.run(None, {export.INPUT: row[None]})[0][0, 0]) for row in rows])


def run_batch(model: bytes, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same in one batch, for figures."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {export.INPUT: rows})[0][:, 0], dtype=np.float64)


def varied(frame: Frame) -> list[int]:
    """Indices of the features that are not constant, the only ones worth an input."""
    spread = [np.unique(column[~np.isnan(column)]).size + bool(np.isnan(column).any()) for column in frame.values.T]
    return [at for at, distinct in enumerate(spread) if distinct > 1]


def usual(values: NDArray[np.float64], missing: float) -> tuple[float, float]:
    """Median and half the quartile distance of what is there."""
    present = values[~np.isnan(values)]
    if present.size == 0:
        return missing, 0.0
    low, middle, high = np.quantile(present, [0.25, 0.5, 0.75], method="lower")
    return float(middle), float((high - low) / 2)


def train(frame: Frame, settings: Settings) -> Draft:
    """Fits, exports, calibrates and reports. Raises ValueError when rows or labels do not suffice."""
    chosen = varied(frame)
    learn, hold, test = frame.split((0.6, 0.2))
    positive = [np.isin(part.labels, settings.positive) for part in (learn, hold, test)]
    if min(int(part.sum()) for part in positive[:2]) == 0:
        raise ValueError("the rows to train and to calibrate on must both hold labelled abuse: replay with labels, or for longer")
    rows = [narrow(part.values[:, chosen], settings.missing) for part in (learn, hold, test)]
    booster = fit(rows[0], positive[0], settings, weights(positive[0], learn.details))
    model: bytes = export.boosted(booster.dump_model(), len(chosen)).SerializeToString(deterministic=True)
    apart = np.abs(run_batch(model, rows[1]) - booster.predict(rows[1].astype(np.float64), num_threads=1)).max()
    if apart > AGREE:
        raise ValueError(f"the exported model is {apart} away from the trained one, allowed is {AGREE}")
    scores = run_batch(model, rows[1])
    knots = calibrate.at_prior(calibrate.isotonic(scores, positive[1]), float(positive[1].mean()), settings.prior)
    table = calibrate.table(knots, len(scores))
    # Usual is what ordinary rows show: an attack must not make itself usual.
    ordinary = learn.values[~positive[0]]
    inputs = [Input(frame.names[at], frame.hashes[at], *usual(ordinary[:, at], settings.missing), settings.missing) for at in chosen]
    judged = run_batch(model, rows[2])
    figures = metrics.figures(judged, positive[2])
    gains = dict(zip([frame.names[at] for at in chosen], booster.feature_importance("gain").tolist(), strict=True))
    report = {
        "rows": {"train": learn.rows, "calibrate": hold.rows, "test": test.rows},
        "positives": dict(zip(("train", "calibrate", "test"), (int(part.sum()) for part in positive), strict=True)),
        "test": figures,
        "recall_by_kind_at_fpr_0_001": metrics.by_kind(judged, positive[2], test.details),
        "cpu": cpu(),
        "settings": vars(settings),
        "gain": dict(sorted(gains.items(), key=lambda pair: -pair[1])[:20]),
        "largest_difference_to_trainer": float(apart),
    }
    golden = golden_rows(positive[1])
    held = hold.values[golden][:, chosen]
    return Draft(
        description=settings.description,
        licence=settings.licence,
        inputs=inputs,
        metrics=figures,
        model=model,
        calibration=table,
        profile=profile.profile([one.name for one in inputs], learn.values[:, chosen], scores),
        golden=(held, run(model, rows[1][golden])),
        report=report,
        training={
            "from_us": int(learn.times[0]),
            "to_us": int(learn.times[-1]),
            "rows": learn.rows,
            "schema": frame.schema,
            "seed": settings.seed,
        },
    )


def cpu() -> str:
    """The type of this CPU: digests of a run are the same only on one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def golden_rows(positive: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of golden rows, half of them abusive where there are enough, spread over time."""
    half = GOLDEN_ROWS // 2
    parts = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    spread = [part[np.linspace(0, len(part) - 1, min(half, len(part))).astype(np.intp)] for part in parts]
    return np.sort(np.concatenate(spread))
