"""The rows that the exports of models/fixtures learn from and are asked about: seeds enter, rows like a site's features leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 7
ROWS = 1_000
# In the order in which the models read them, which is not the schema's.
NAMES = (
    "session.objects_10m",
    "address.requests_1m",
    "address.users_failed_10m",
    "user.requests_24h",
    "address.failed_logins_24h",
    "session.gap_mean_10m",
    "user.addresses_24h",
    "address.error_ratio_10m",
)
Rows = NDArray[np.float32]


def made(seed: int, count: int) -> tuple[Rows, NDArray[np.int64]]:
    """Rows like a site's features, one in ten of an attacker; the last fifth with missing values."""
    rng = np.random.default_rng(seed)
    attack = rng.random(count) < 0.1
    values = np.stack(
        [
            rng.poisson(np.where(attack, 9, 2)),
            rng.poisson(np.where(attack, 14, 6)),
            rng.poisson(np.where(attack, 2, 0.1)),
            rng.poisson(60, count),
            rng.poisson(np.where(attack, 5, 0.4)),
            rng.gamma(np.where(attack, 1.2, 3.0), 0.7),
            rng.poisson(1, count) + 1,
            rng.beta(1.5, np.where(attack, 4, 15)),
        ],
        axis=1,
    ).astype(np.float32)
    late = np.arange(count) >= count * 4 // 5
    for column in (2, 5, 7):
        values[late & (rng.random(count) < 0.3), column] = np.nan
    return values, attack.astype(np.int64)


def usual(rows: Rows) -> Rows:
    """The median of each feature."""
    return np.nanmedian(rows, axis=0).astype(np.float32)


def filled(rows: Rows, values: Rows) -> Rows:
    """Rows whose missing values are replaced."""
    return np.where(np.isnan(rows), values, rows).astype(np.float32)
