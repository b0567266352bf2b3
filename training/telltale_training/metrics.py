"""How good a score is on held-out rows: scores and labels enter, figures leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def curve(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and false positives at each distinct threshold, falling."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(positive[order])[ends].astype(np.float64)
    return true, ends + 1 - true


def figures(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> dict[str, float]:
    """PR-AUC (average precision), ROC-AUC and recall at 0.1 % false positives. Empty when a class is absent."""
    positives, negatives = float(positive.sum()), float((~positive).sum())
    if positives == 0 or negatives == 0:
        return {}
    true, false = curve(scores, positive)
    recall, fall_out = true / positives, false / negatives
    precision = true / (true + false)
    within = fall_out <= 0.001
    return {
        "pr_auc": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
        "roc_auc": float(np.trapezoid(np.append(0.0, recall), np.append(0.0, fall_out))),
        "recall_at_fpr_0_001": float(recall[within].max()) if within.any() else 0.0,
    }


def by_kind(scores: NDArray[np.float64], positive: NDArray[np.bool_], kinds: NDArray[np.str_]) -> dict[str, float]:
    """Recall of each kind of abuse at 0.1 % false positives over all rows."""
    if not positive.any() or positive.all():
        return {}
    ordinary = np.sort(scores[~positive])[::-1]
    threshold = ordinary[int(len(ordinary) * 0.001)]
    return {str(kind): float((scores[positive & (kinds == kind)] > threshold).mean()) for kind in np.unique(kinds[positive])}
