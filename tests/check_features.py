"""`make check-features`: what temporal features in Redis require, each figure beside its bar.

Enters: the built programs and suites, `redis-server`. Leaves: a table on standard output and `target/check/features.json`; exit code 1
when a bar is missed or a figure is absent. Measures, never mends.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from check_path import ROOT, WORK, Figure, run, show, suite, summary

# The benches that the features' issue asks for; `make bench` runs them among the others.
BENCHES = ("core", "redis", "flood")


def each(name: str, tests: tuple[tuple[str, str], ...]) -> Iterator[Figure]:
    """One figure a test of the end-to-end suite: it passes, or its last words."""
    for test, what in tests:
        try:
            suite(f"^{name}::{test}")
        except RuntimeError as error:
            yield Figure(what, " ".join(str(error).split()), "passes", holds=False)
            continue
        yield Figure(what, "passes", "passes", holds=True)


def contract() -> Iterator[Figure]:
    """One contract suite on every store, vectors identical to the last bit."""
    yield from each(
        "stores",
        (
            ("a_single_redis_gives", "contract and vectors: embedded and a real redis-server"),
            ("a_master_behind_sentinels_gives", "contract and vectors: Sentinel"),
            ("a_cluster_gives", "contract and vectors: a Cluster of six processes"),
        ),
    )


def replicas() -> Iterator[Figure]:
    """Exactly mergeable aggregations of several writers equal one process's."""
    yield from each(
        "replicas",
        (
            ("four_writers_on_the_same_keys", "4 writers, 5 hot and 400 cold keys: equal one process's"),
            ("a_redis_that_persists", "the same, Redis killed and restarted in the middle"),
            ("nothing_counts_twice", "the same, one answer in 50 lost after execution"),
            ("twelve_writers", "12 writers on the same keys, one answer in 50 lost"),
            ("slots_of_a_cluster_move", "Cluster slots moved under load: nothing lost"),
            ("sentinels_make_another_master", "failover by Sentinel: nothing acknowledged lost"),
            ("a_forgotten_entity", "a forgotten entity: late deltas do not bring it back"),
            ("a_clock_ten_seconds_off", "a clock 10 s off: corrected, reported"),
        ),
    )


def faults() -> Iterator[Figure]:
    """Real processes fail; nobody waits past the deadline, the status tells the truth, recovery needs no hand."""
    yield from each(
        "shared_state",
        (
            ("two_scorers_share", "scorer kill -9: at most a flush interval lost"),
            ("a_paused_redis", "Redis stopped in its tracks"),
            ("a_redis_that_comes_back_empty", "Redis killed, restarted empty"),
            ("a_wrong_password", "wrong password"),
            ("a_slow_way", "200 ms delay"),
            ("a_full_redis", "maxmemory reached"),
            ("in_sync_mode", "sync mode: durable, or pending by the deadline"),
            ("an_encrypted_way", "TLS with certificates on both sides"),
            ("an_override_soon", "an override holds on every scorer within 3 seconds"),
        ),
    )


def accuracy() -> Iterator[Figure]:
    """Every aggregation beside an exact reference that keeps all events; the worst window of each."""
    out = WORK / "accuracy.json"
    out.unlink(missing_ok=True)
    missed = ""
    try:
        suite("every_aggregation", TELLTALE_SIZE="full")
    except RuntimeError as error:
        missed = " ".join(str(error).split())
    if not out.exists():
        raise RuntimeError(missed or "no figures were written")
    rows = json.loads(out.read_text(encoding="utf-8"))
    for row in rows:
        value = "absent" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        yield Figure(row["name"], value, row["bar"] or "", row["holds"])
    if not any("card customers" in row["name"] for row in rows):
        yield Figure("card payments of fraud_handbook/dev", "absent", "measured", holds=False)


def measured() -> Iterator[Figure]:
    """Redis beside two other designs, memory, a flood of ids, the core path: one run of the benches."""
    run(ROOT / "target" / "release" / "bench", *BENCHES)
    yield from summary(ROOT / "target" / "bench" / "summary.json")


def evolution() -> Iterator[Figure]:
    """Many scorers, schemas that change, stores that are left, entities that are forgotten."""
    yield from each(
        "many_scorers",
        (
            ("four_scorers_count_what", "4 scorers, 1 Redis: every exactly merging reading equals one scorer's"),
            ("a_redis_killed", "the same in sync mode, Redis killed and restarted"),
            ("four_scorers_that_lose", "the same, 1 % of the answers lost after execution"),
            ("twelve_scorers", "12 scorers on one key"),
        ),
    )
    yield from each("strict", (("", "idempotency strict: an id at two scorers at once counts once"),))
    yield from each("rolling", (("", "rolling deploy of a schema over one Redis: no failed call, no slot lost"),))
    yield from each(
        "snapshots",
        (
            ("a_killed_scorer", "kill -9: restored from snapshots and journal, equal row by row"),
            ("without_a_journal", "no journal: an orderly stop keeps everything; another key is refused"),
            ("state_moves_to_redis_and_back", "state export and import: embedded, Redis, and back, every read equal"),
        ),
    )
    yield from each("erasure", (("", "a forgotten id: in no key, file, journal or dictionary; late reports"),))
    yield from each("parity", (("", "parity: replay says again what was said live"),))


CHECKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "contract": contract,
    "replicas": replicas,
    "faults": faults,
    "evolution": evolution,
    "accuracy": accuracy,
    "measured": measured,
}


def main() -> int:
    """Runs the checks named, all by default; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], default=[], help="which; all by default")
    WORK.mkdir(parents=True, exist_ok=True)
    everything: list[Figure] = []
    for name in parser.parse_args().checks or CHECKS:
        try:
            for figure in CHECKS[name]():
                show(figure)
                everything.append(figure)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            figure = Figure(name, f"absent: {error}", "measured", holds=False)
            show(figure)
            everything.append(figure)
    lines = json.dumps([asdict(figure) for figure in everything], indent=1, ensure_ascii=False)
    (WORK / "features.json").write_text(lines + "\n", encoding="utf-8")
    missed = sum(figure.holds is False for figure in everything)
    print(f"{len(everything)} figures, {missed} missed or absent")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
