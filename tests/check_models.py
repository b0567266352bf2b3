"""Prints what the models' issue requires, each figure beside its bar; fails when one is missed or cannot be measured.

`make check-models`, or `python tests/check_models.py swaps hostile …` for some. `TELLTALE_SIZE=full` runs 10,000 swaps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

from check_path import ROOT, TELLTALE, WORK, Figure, data, models, run, show, suite, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The bars of the issue.
FULL_SWAPS, MOST_GROWTH, ROLLBACK_MS, FIRST_REQUEST = 10_000, 5, 10, 1.5
LEAST_FILES, LEAST_CLASSES, P99_MOVES = 40, 12, 10
LEAST_TRUE = 0.9
# Traffic that nothing was tuned on.
REASONS_SEED = "92107"
AGREE, KINDS = 1e-5, 8
# Native kinds that are not among the shipped models.
KINDS_BESIDE = ("half-space", "pca", "gmm", "kmeans", "logistic")


def read(name: str, tests: str, **environment: str) -> dict[str, Any]:
    """The figures that these tests leave."""
    out = WORK / name
    out.unlink(missing_ok=True)
    suite(tests, **environment)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def swaps() -> Iterator[Figure]:
    """Promotions, rollbacks, canary moves and inbox drops under constant gRPC load."""
    found = read("swaps.json", "^swaps::")
    full = os.environ.get("TELLTALE_SIZE") == "full"
    value = f"{found['swaps']:,} ({found['drops']:,} of them inbox drops) in {found['calls']:,} calls"
    yield Figure("swaps under gRPC load", value, "10,000 in `make soak`", found["swaps"] >= FULL_SWAPS if full else None)
    yield Figure("failed calls", str(found["failed"]), "0", found["failed"] == 0)
    yield Figure("verdicts that mix versions", str(found["mixed"]), "0", found["mixed"] == 0)
    growth = found["resident_growth_percent"]
    yield Figure("resident memory above the start", f"{growth:.1f} %", "≤ 5 %", growth <= MOST_GROWTH)
    longest = found["rollback_max_ms"]
    yield Figure("rollback, longest", f"{longest:.2f} ms (median {found['rollback_p50_ms']:.2f})", "< 10 ms", longest < ROLLBACK_MS)
    steady, median = max(found["steady_p99_us"], 1), found["first_after_swap_p50_us"] / max(found["steady_p50_us"], 1)
    ratio, still = found["first_after_swap_p99_us"] / steady, found["first_after_swap_p99_us"] / max(found["still_p99_us"], 1)
    value = f"{ratio:.2f} times {steady:,} µs (median {median:.2f}; {still:.2f} times the p99 before any swap)"
    yield Figure("first request after a swap, p99, beside steady p99", value, "≤ 1.5 times", ratio <= FIRST_REQUEST)


def hostile() -> Iterator[Figure]:
    """The corpus of hostile models against a running server."""
    found = read("hostile.json", "^models::every_hostile_model", TELLTALE_ROUNDS="2")
    many = found["files"] >= LEAST_FILES and found["guards"] >= LEAST_CLASSES
    value = f"{found['files']} by {found['guards']} guards"
    yield Figure("hostile models stopped, each by its own guard; no call failed", value, "≥ 40 in ≥ 12 classes, all", many)
    calm = max(found["calm_p99_us"], 1)
    moved = 100 * (found["dropped_p99_us"] / calm - 1)
    value = f"{moved:+.1f} % of {calm:,} µs, over {found['calls']:,} calls"
    yield Figure("server p99 while the corpus is dropped", value, "< 10 %", moved < P99_MOVES)


def harm() -> Iterator[Figure]:
    """The corpus where nothing stops it: a class that does no harm does not count."""
    out = WORK / "harm.json"
    out.unlink(missing_ok=True)
    # It fails when a class does none; the figures say which.
    subprocess.run([sys.executable, ROOT / "tests/harm.py", WORK / "corpus"], check=False, stdout=subprocess.DEVNULL)
    classes: dict[str, dict[str, int]] = json.loads(out.read_text(encoding="utf-8"))
    for name, found in classes.items():
        yield Figure(f"without its guard, {name}: {found['harm']}", f"{found['did']} of {found['files']} files", "some", found["did"] > 0)
    files, doing = sum(found["did"] for found in classes.values()), sum(found["did"] > 0 for found in classes.values())
    many = files >= LEAST_FILES and doing >= LEAST_CLASSES
    yield Figure("files that do harm without their guard", f"{files} in {doing} classes", "≥ 40 in ≥ 12 classes", many)


def killed() -> Iterator[Figure]:
    """SIGKILL at every step of a publish, by the server and by the command."""
    suite("^killed::")
    yield Figure("scorer killed at each step of taking a model: whole, served, taken once", "yes", "yes", holds=True)
    suite("^models::a_publish_killed")
    yield Figure("`telltale models publish` killed at 24 moments: whole repository", "yes", "yes", holds=True)


def containment() -> Iterator[Figure]:
    """What a worker cannot do, and could without its guards; workers that are killed."""
    suite("^models::a_worker_can_do_nothing")
    yield Figure("a worker's forbidden acts prevented; done without the guards", "yes", "yes", holds=True)
    suite("^models::killed_workers")
    yield Figure("workers killed by SIGKILL: no call failed, replaced", "yes", "yes", holds=True)


def drill() -> Iterator[Figure]:
    """The README's own lines on a LightGBM export, under load."""
    took = read("drop_in.json", "^drop_in::")["rollback_ms"]
    yield Figure("LightGBM export: inbox, shadow, compared, canary 5 %, promoted, rolled back; no call failed", "done", "done", holds=True)
    yield Figure("rollback from that contained model", f"{took:.1f} ms", "< 10 ms", took < ROLLBACK_MS)


def parity() -> Iterator[Figure]:
    """Replay follows every change of models."""
    suite("server::tests::models::swaps_under_load")
    yield Figure("swaps replayed from the journal, 1 and 2 threads", "equal", "bitwise equal", holds=True)


def exports() -> Iterator[Figure]:
    """Models as their libraries export them, PyTorch's autoencoder among them."""
    found = read("exports.json", "real_exports_score_as_their_libraries_do")
    for kind, figures in found.items():
        value = f"{figures['difference']:.1e} ({figures['near_a_split']} rows within 1 ulp of a split)"
        yield Figure(f"{kind}'s export beside Python, 1,000 rows, largest difference", value, "1e-5", figures["difference"] <= AGREE)
    yield Figure(
        "kinds of real exports", str(len(found)), f"{KINDS}, a PyTorch autoencoder", len(found) == KINDS and "autoencoder" in found
    )


def adbench() -> Iterator[Figure]:
    """The native detectors beside scikit-learn's isolation forest."""
    out = WORK / "adbench.json"
    out.unlink(missing_ok=True)
    run("python", ROOT / "tests" / "adbench.py", "--data", data() / "adbench" / "dev", "--out", out)
    found = json.loads(out.read_text(encoding="utf-8"))
    mean, sets = found["mean"], len(found["sets"])
    reference, ours = mean["scikit-learn"], mean["forest"]
    name = f"isolation forest beside scikit-learn's on {sets} sets, {len(found['seeds'])} seeds, mean AUC"
    yield Figure(name, f"{ours:.4f} beside {reference:.4f}, not below in {found['forest_not_below']} sets", "not below", ours >= reference)
    for kind in (kind for kind in mean if kind not in ("scikit-learn", "forest") and " + " not in kind):
        yield Figure(f"{kind} beside them, mean AUC", f"{mean[kind]:.4f}")
    best = found["best_combination"]
    if best is None or "half-space" not in mean:
        yield Figure("half-space trees and the best combination beside them", "absent: one kind alone", "told", holds=False)
    else:
        yield Figure(f"the best combination ({best}), mean AUC", f"{mean[best]:.4f}")


def bench() -> Iterator[Figure]:
    """What a row costs by kind and batch, in-process, in a worker, in Python and behind a mutex; what a swap costs."""
    run(ROOT / "target" / "release" / "bench", "models")
    yield from summary(ROOT / "target" / "bench" / "summary.json")


def fitted() -> list[str | Path]:
    """Arguments that name one model of each other native kind, fitted to the traffic that the shipped ones were fitted to."""
    settings = tomllib.loads((ROOT / "training" / "config.toml").read_text(encoding="utf-8"))
    folder = WORK / "kinds"
    shutil.rmtree(folder, ignore_errors=True)
    run("env", f"TELLTALE_WORK={folder}", ROOT / "training" / "train.sh", folder / "shipped")
    exclude, features, beside = ",".join(settings["features"]["exclude"]), folder / "features.parquet", folder / "beside"
    for kind in KINDS_BESIDE:
        run(TELLTALE, "train", "--kind", kind, "--features", features, "--repository", beside, "--exclude", exclude)
    return ["--models", beside, "--shipped-calibration"]


def reasons() -> Iterator[Figure]:
    """Every alert of simulated traffic: does the risk fall with the feature of the first reason at its usual value?"""
    yield from truth(*models(), "--days", "3", "--customers", "800")
    yield from truth(*fitted(), "--days", "2", "--customers", "300", "--intensity", "medium")


def truth(*arguments: str | Path) -> Iterator[Figure]:
    """The share of true first reasons of these models on traffic of that shape, a kind and a model."""
    out = WORK / "reasons.json"
    out.unlink(missing_ok=True)
    run(TELLTALE, "eval", *arguments, "--seed", REASONS_SEED, "--reasons", out)
    found: dict[str, dict[str, float]] = json.loads(out.read_text(encoding="utf-8"))
    if not found:
        raise ValueError("no alert")
    for name, row in found.items():
        value = f"{100 * row['share']:.2f} % of {row['alerts']:,.0f} alerts, {row['unexplained']:,.0f} without a reason"
        yield Figure(f"first reason lowers the risk, {name}", value, "≥ 90 %", row["share"] >= LEAST_TRUE)
        yield Figure(f"cost of reasons in a call, {name}", f"p50 {row['p50_us']:.1f} µs, p99 {row['p99_us']:.1f} µs", "told")


def protocol() -> Iterator[Figure]:
    """A client from PyPI over the Open Inference Protocol."""
    run("python", "-m", "pytest", "-q", ROOT / "tests" / "test_inference.py")
    yield Figure("tritonclient[grpc] reads metadata and infers 1,000 rows as Python does", "yes", "yes", holds=True)


CHECKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "swaps": swaps,
    "hostile": hostile,
    "harm": harm,
    "containment": containment,
    "killed": killed,
    "drill": drill,
    "parity": parity,
    "exports": exports,
    "reasons": reasons,
    "adbench": adbench,
    "bench": bench,
    "protocol": protocol,
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
