"""Calibration on labelled rows: raw scores and labels enter, a rising table of at most 256 knots leaves.

Pool-adjacent-violators over groups of equal size, ties kept together; the same rules as `models/src/calibration/isotonic.rs`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUPS = 128


@dataclass
class Block:
    """Neighbouring rows that share one probability."""

    raw: float
    positives: float
    rows: float

    def joined(self, other: Block) -> Block:
        """Both together."""
        rows = self.rows + other.rows
        raw = (self.raw * self.rows + other.raw * other.rows) / rows
        return Block(raw, self.positives + other.positives, rows)

    @property
    def share(self) -> float:
        """Share of positives, kept off 0 and 1 by as much as the number of rows can tell."""
        margin = 1.0 / (self.rows + 2.0)
        return min(max(self.positives / self.rows, margin), 1.0 - margin)


def isotonic(raw: NDArray[np.float64], positive: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Knots (raw score, probability), both strictly rising. Raises ValueError when one of the classes is empty."""
    if not 0 < int(positive.sum()) < len(positive):
        raise ValueError(f"{int(positive.sum())} of {len(positive)} rows are abusive: calibration needs both kinds")
    blocks: list[Block] = []
    for group in groups(raw, positive):
        blocks.append(group)
        while len(blocks) > 1 and not (blocks[-2].share < blocks[-1].share and blocks[-2].raw < blocks[-1].raw):
            blocks[-2:] = [blocks[-2].joined(blocks[-1])]
    return [(block.raw, block.share) for block in blocks]


def groups(raw: NDArray[np.float64], positive: NDArray[np.bool_]) -> list[Block]:
    """Rows in order of score in groups of about equal size; equal scores stay together."""
    order = np.argsort(raw, kind="stable")
    size = len(raw) / GROUPS
    out: list[Block] = []
    last = None
    for score, label in zip(raw[order].tolist(), positive[order].tolist(), strict=True):
        row = Block(score, float(label), 1.0)
        if out and (out[-1].rows < size or score == last):
            out[-1] = out[-1].joined(row)
        else:
            out.append(row)
        last = score
    return out


def at_prior(knots: list[tuple[float, float]], observed: float, prior: float) -> list[tuple[float, float]]:
    """The same knots for traffic whose share of abuse is `prior`, not the `observed` one of the rows.

    Saerens, Latinne, Decaestecker, Neural Computation 2002.
    """
    up, down = prior / observed, (1.0 - prior) / (1.0 - observed)
    return [(raw, value * up / (value * up + (1.0 - value) * down)) for raw, value in knots]


def table(knots: list[tuple[float, float]], rows: int) -> str:
    """The table as `calibration.json`."""
    for (low, before), (high, after) in itertools.pairwise(knots):
        if low >= high or before > after:
            raise ValueError(f"knots {(low, before)} and {(high, after)} do not rise")
    written = {"meaning": "probability", "rows": rows, "knots": [[raw, value] for raw, value in knots]}
    return json.dumps(written, separators=(",", ":"))
