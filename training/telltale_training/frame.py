"""Feature files: what `telltale replay --features` writes enters, one matrix with names, hashes, labels and times leaves."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HASHES_KEY = b"telltale.features"
SCHEMA_KEY = b"telltale.schema"


class FrameError(ValueError):
    """A feature file that cannot be trained on; says what is wrong and what is allowed."""


@dataclass(frozen=True)
class Frame:
    """Rows of features in order of time. `values` is float64 [rows, features] with NaN where there was no evidence.

    `details` say which kind of abuse a label means.
    """

    names: list[str]
    hashes: list[str]
    values: NDArray[np.float64]
    labels: NDArray[np.str_]
    details: NDArray[np.str_]
    times: NDArray[np.int64]
    schema: str

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.times)

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Frame:
        """The chosen rows."""
        return Frame(
            self.names, self.hashes, self.values[chosen], self.labels[chosen], self.details[chosen], self.times[chosen], self.schema
        )

    def split(self, shares: tuple[float, float]) -> tuple[Frame, Frame, Frame]:
        """Cuts by time: the first share to train on, the second to calibrate on, the rest to report on."""
        first = int(self.rows * shares[0])
        second = int(self.rows * (shares[0] + shares[1]))
        return self.part(slice(0, first)), self.part(slice(first, second)), self.part(slice(second, None))


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a feature is kept out of training."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def read(paths: Sequence[Path], exclude: Sequence[str] = ()) -> Frame:
    """Reads feature files of one schema, as one frame in order of time.

    Raises FrameError when a file has no features, no time, or another schema than the first.
    """
    if not paths:
        raise FrameError("no feature file was given; `telltale replay INPUT --features FILE` writes one")
    parts = [read_one(path, exclude) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if (part.names, part.hashes) != (first.names, first.hashes):
            raise FrameError(f"{path}: its features are not those of {paths[0]}; replay both with one schema")
    values = np.concatenate([part.values for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    details = np.concatenate([part.details for part in parts])
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    return Frame(first.names, first.hashes, values[order], labels[order], details[order], times[order], first.schema)


def read_one(path: Path, exclude: Sequence[str]) -> Frame:
    """Reads one feature file in its own order."""
    table = pq.read_table(path)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    hashes: dict[str, str] = json.loads(metadata.get(HASHES_KEY, b"{}"))
    names = [name for name in table.column_names if name in hashes and not excluded(name, exclude)]
    if not names:
        raise FrameError(f"{path}: no column that the metadata `telltale.features` names: not a file of `telltale replay --features`?")
    if "time_us" not in table.column_names:
        raise FrameError(f"{path}: the column `time_us` is absent")
    columns = [np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in names]

    def texts(name: str) -> NDArray[np.str_]:
        found = table[name].to_pylist() if name in table.column_names else [""] * table.num_rows
        return np.array([text or "" for text in found], dtype=np.str_)

    return Frame(
        names=names,
        hashes=[hashes[name] for name in names],
        values=np.stack(columns, axis=1) if table.num_rows else np.empty((0, len(names))),
        labels=texts("label"),
        details=texts("label_detail"),
        times=np.asarray(table["time_us"].to_numpy(), dtype=np.int64),
        schema=metadata.get(SCHEMA_KEY, b"").decode(),
    )
