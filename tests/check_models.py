"""Prints what the models' issue requires, each figure beside its bar; fails when one is missed or cannot be measured.

`make check-models`, or `python tests/check_models.py swaps hostile …` for some. `TELLTALE_SIZE=full` runs 10,000 swaps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from check_path import ROOT, WORK, Figure, run, show, suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def swaps() -> Iterator[Figure]:
    """Promote, rollback and canary moves under constant gRPC load."""
    out = WORK / "swaps.json"
    out.unlink(missing_ok=True)
    suite("^swaps::")
    found = json.loads(out.read_text(encoding="utf-8"))
    full = os.environ.get("TELLTALE_SIZE") == "full"
    yield Figure(
        "swaps under gRPC load", f"{found['swaps']:,} in {found['calls']:,} calls", "10,000 in `make soak`", True if full else None
    )
    yield Figure("failed calls", str(found["failed"]), "0", found["failed"] == 0)
    yield Figure("verdicts that mix versions", str(found["mixed"]), "0", found["mixed"] == 0)
    growth = found["resident_growth_percent"]
    yield Figure("resident memory above the start", f"{growth:.1f} %", "≤ 5 %", growth <= 5)
    yield Figure("rollback, longest", f"{found['rollback_max_ms']:.2f} ms", "< 10 ms", found["rollback_max_ms"] < 10)
    ratio = found["first_after_swap_p50_us"] / max(found["steady_p99_us"], 1)
    yield Figure("first request after a swap, median, beside steady p99", f"{ratio:.2f} times", "≤ 1.5 times", ratio <= 1.5)


def hostile() -> Iterator[Figure]:
    """The corpus of hostile models against a running server."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, ROOT / "tests" / "hostile.py", folder)
        expected = json.loads((Path(folder) / "expected.json").read_text(encoding="utf-8"))
    classes = set(expected.values())
    suite("^models::every_hostile_model")
    many = len(expected) >= 40 and len(classes) >= 12
    yield Figure("hostile models stopped, each by its own guard", f"{len(expected)} in {len(classes)} classes", "≥ 40 in ≥ 12, all", many)


def containment() -> Iterator[Figure]:
    """What a worker cannot do, and could without its guards; workers that are killed."""
    suite("^models::a_worker_can_do_nothing")
    yield Figure("a worker's forbidden acts prevented; done without the guards", "7 of 7", "all", holds=True)
    suite("^models::killed_workers")
    yield Figure("workers killed by SIGKILL: no call failed, replaced", "yes", "yes", holds=True)


def parity() -> Iterator[Figure]:
    """Replay follows every change of models."""
    suite("server::tests::models::swaps_under_load")
    yield Figure("swaps replayed from the journal, 1 and 2 threads", "equal", "bitwise equal", holds=True)


def exports() -> Iterator[Figure]:
    """Models as their libraries export them."""
    suite("real_exports_score_as_their_libraries_do")
    yield Figure("real exports of seven kinds beside Python, 1,000 rows", "within", "1e-5", holds=True)


def absent() -> Iterator[Figure]:
    """What is required and not measured yet."""
    for name in (
        "server p99 while the corpus is dropped",
        "each judged class does harm with its guard off",
        "kill -9 of the server at every step of a publish",
        "truth of reasons for each kind",
        "native isolation forest beside scikit-learn's on adbench",
        "microseconds a row in-process and in a worker at batch 1, 16, 64",
        "tritonclient reads metadata and infers",
    ):
        yield Figure(name, "absent: not measured yet", "as the issue says", holds=False)


CHECKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "swaps": swaps,
    "hostile": hostile,
    "containment": containment,
    "parity": parity,
    "exports": exports,
    "absent": absent,
}


def main() -> int:
    """Runs the checks named, all by default; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], default=[], help="which; all by default")
    WORK.mkdir(parents=True, exist_ok=True)
    missed, total = 0, 0
    for name in parser.parse_args().checks or CHECKS:
        try:
            for figure in CHECKS[name]():
                show(figure)
                total, missed = total + 1, missed + (figure.holds is False)
        except (RuntimeError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            show(Figure(name, f"absent: {error}", "measured", holds=False))
            total, missed = total + 1, missed + 1
    print(f"{total} figures, {missed} missed or absent")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
