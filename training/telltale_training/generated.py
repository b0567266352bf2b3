"""Made-up feature files for tests and fixtures: a seed enters, rows of a slow attack among customers leave. Nothing ships from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = (
    "address.requests_1m",
    "address.failed_logins_10m",
    "address.users_1h",
    "address.interarrival_cv",
    "user.age_days",
    "session.paths_10m",
    "endpoint.failure_ratio_1h",
    "request.body_size",
)
START_US = 1_767_225_600_000_000


def hash_of(at: int) -> str:
    """The definition hash of a made-up feature."""
    return f"{0xF00D_0000 + at:016x}"


def rows(seed: int, count: int) -> tuple[NDArray[np.float64], list[str]]:
    """Feature rows and labels; about one in twenty is an attack that overlaps with customers in every single feature."""
    rng = np.random.default_rng(seed)
    attack = rng.random(count) < 0.05
    scale = np.where(attack, 1.6, 1.0)
    values = np.stack(
        [
            rng.poisson(4 * scale),
            rng.poisson(np.where(attack, 1.5, 0.2)),
            rng.poisson(np.where(attack, 3, 1)) + 1,
            rng.gamma(np.where(attack, 1.5, 3.0), 0.3),
            rng.exponential(np.where(attack, 40, 200)),
            rng.poisson(3, count),
            rng.beta(2, np.where(attack, 6, 20)),
            rng.lognormal(5, 1.5, count),
        ],
        axis=1,
    ).astype(np.float64)
    values[rng.random(count) < 0.3, 3] = np.nan
    values[rng.random(count) < 0.2, 4] = np.nan
    return values, ["abuse" if one else "benign" for one in attack]


def write(path: Path, seed: int, count: int) -> None:
    """A feature file as `telltale replay --features` writes it."""
    values, labels = rows(seed, count)
    columns = {name: pa.array(values[:, at], from_pandas=True) for at, name in enumerate(NAMES)}
    table = pa.table(
        {
            "transaction_id": [f"{at:032x}" for at in range(count)],
            "time_us": pa.array(START_US + np.arange(count) * 1_000_000, pa.int64()),
            "label": labels,
            "entity.address": [f"{at % 97:032x}" for at in range(count)],
            **columns,
        }
    )
    metadata = {"telltale.schema": "00000000f00d0000"}
    metadata["telltale.features"] = json.dumps({name: hash_of(at) for at, name in enumerate(NAMES)})
    pq.write_table(table.replace_schema_metadata(metadata), path)
