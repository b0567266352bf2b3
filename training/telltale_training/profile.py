"""What the rows of a model looked like: columns enter, `profile.json` leaves. The bins are those of `models/src/profile.rs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TENTHS = 10


def bins(values: NDArray[np.float64]) -> dict[str, Any]:
    """Counts by tenths of what is there; bin `i` holds what is above edge `i-1` and not above edge `i`.

    A value that fills two tenths or more has a bin of its own. Tenths are those of finite values, infinite ones are in the outer bins.
    """
    counted = values[~np.isnan(values)]
    present = np.sort(counted[np.isfinite(counted)])
    places = [(present.size - 1) * tenth // TENTHS for tenth in range(1, TENTHS)] if present.size else []
    quantiles = present[places]
    repeated = quantiles[1:][quantiles[1:] == quantiles[:-1]]
    with np.errstate(over="ignore"):
        edges = np.unique(np.concatenate([quantiles, repeated, np.nextafter(repeated, -np.inf)]))
    edges = edges[np.isfinite(edges)]
    counts = np.bincount(np.searchsorted(edges, counted, side="left"), minlength=edges.size + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def profile(names: Sequence[str], rows: NDArray[np.float64], raw: NDArray[np.float64]) -> str:
    """`profile.json` of the inputs' columns (rows by inputs, NaN where missing) and of raw scores of rows that the model did not learn."""
    inputs = [{"name": name, "bins": bins(rows[:, at]), "missing": int(np.isnan(rows[:, at]).sum())} for at, name in enumerate(names)]
    return json.dumps({"rows": len(rows), "inputs": inputs, "score": bins(raw)}) + "\n"
