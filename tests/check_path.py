"""`make check-path`: what the main job requires, each figure beside its bar.

Enters: the built programs, the data folder (TELLTALE_DATA), figures that `make bench` wrote. Leaves: a table on standard output and
`target/check/path.json`; exit code 1 when a bar is missed or a figure is absent. Measures, never mends.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TELLTALE = ROOT / "target" / "release" / "telltale"
WORK = ROOT / "target" / "check"
ENFORCED = {"ACTION_RATE_LIMIT", "ACTION_CHALLENGE", "ACTION_DECEIVE", "ACTION_BLOCK"}
# No rule, model or measure was ever tuned by a look at these: where one was, others take their place.
SEEDS = (201, 202, 203, 204, 205)
EVALUATION_SEED = 93_001


@dataclass
class Figure:
    """One figure beside its bar; `holds` is None where nothing is asked of it."""

    name: str
    value: str
    bar: str = ""
    holds: bool | None = None


def run(*command: str | Path) -> str:
    """Standard output of a command; raises with its last words when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        # Where a test failed, and why, stands before the summary.
        panic = next((at for at, line in enumerate(lines) if "panicked at" in line), None)
        last = "\n".join(lines[-5:] if panic is None else lines[panic : panic + 5])
        raise RuntimeError(f"{' '.join(str(part) for part in command[:3])} ended with {done.returncode}: {last}")
    return done.stdout


def data() -> Path:
    """The data folder."""
    return (ROOT / os.environ.get("TELLTALE_DATA", "../shared/data")).resolve()


def models() -> list[str]:
    """Arguments that name the shipped models; raises when they are absent."""
    path = ROOT / "models" / "default"
    if not path.is_dir():
        raise FileNotFoundError(f"absent: {path}")
    return ["--models", str(path), "--shipped-calibration"]


def demo() -> Iterator[Figure]:
    """Every attack at medium intensity is enforced in each of five seeds, live."""
    for seed in SEEDS:
        report = json.loads(run(TELLTALE, "demo", "--seed", str(seed), "--output", "json"))
        attacks: dict[str, dict[str, Any]] = report["tally"]["attacks"]
        missed = sorted(name for name, attack in attacks.items() if attack["first_stopped_request"] is None)
        guests, latency = report["tally"]["customers"], report["latency"]
        value = f"{len(attacks) - len(missed)} of {len(attacks)}" + (f", missed: {', '.join(missed)}" if missed else "")
        yield Figure(f"live, seed {seed}: attacks enforced", value, "all", bool(attacks) and not missed)
        yield Figure(f"live, seed {seed}: customers wrongly enforced", f"{guests['sessions_stopped']} of {guests['sessions']} sessions")
        yield Figure(f"live, seed {seed}: latency added", f"p50 {latency['p50_us']} µs, p99 {latency['p99_us']} µs")


def summary(path: Path) -> Iterator[Figure]:
    """The rows of a bench's or an evaluation's summary."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        number = "absent" if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
        ratio = f" ({row['ratio']:.2f} of {row['baseline']})" if row["ratio"] is not None else ""
        # A missed goal is printed and stops nothing: an absolute time says as much of the machine as of the program.
        missed = ", missed" if row.get("goal") and row["holds"] is False else ""
        yield Figure(row["name"], number + ratio, (row["bar"] or "") + missed, row["holds"] or None if row.get("goal") else row["holds"])


def evaluation() -> Iterator[Figure]:
    """Detection in replay, on traffic that tuned nothing."""
    out = ROOT / "target" / "eval" / "summary.json"
    run(TELLTALE, "eval", "--seed", str(EVALUATION_SEED), "--out", out)
    yield from summary(out)


def bench() -> Iterator[Figure]:
    """The bench's figures; runs it where they are absent."""
    out = ROOT / "target" / "bench" / "summary.json"
    if not out.exists():
        run(ROOT / "tests" / "bench.sh")
    yield from summary(out)


def verdicts(path: Path) -> Iterator[dict[str, Any]]:
    """Verdicts of a replay, one a line."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def scans() -> Iterator[Figure]:
    """Each real scan gets a would-be enforced action, by rules alone and with models."""
    log = WORK / "scan.log"
    run(sys.executable, ROOT / "training/datasets/web_scan_logs.py", "--data", data(), "--out", log)
    truth = json.loads(Path(f"{log}.truth.json").read_text(encoding="utf-8"))
    lines = log.read_text(encoding="utf-8").splitlines()
    for way, arguments in (("rules alone", lambda: []), ("with models", models)):
        out = WORK / "scan.verdicts.ndjson"
        run(TELLTALE, "replay", log, "--format", "combined", "--verdicts", out, "--output", "json", *arguments())
        yield from judge(way, lines, truth, out)


def judge(way: str, lines: list[str], truth: dict[str, Any], out: Path) -> Iterator[Figure]:
    """What one replay of the scans came to."""
    first: dict[tuple[str, str], str] = {}
    flagged: set[str] = set()
    addresses = {scan["ip"] for scan in truth["scanners"]}
    for verdict in verdicts(out):
        if verdict.get("would") not in ENFORCED:
            continue
        line = lines[int(verdict["transactionId"].split("-")[1]) - 1]
        address = line.split(" ", 1)[0]
        if address not in addresses:
            flagged.add(address)
            continue
        reasons = verdict.get("reasons") or [{"text": "no reason"}]
        for scan in truth["scanners"]:
            if scan["ip"] == address and scan["first"] <= moment(line) <= scan["last"]:
                first.setdefault((scan["tool"], address), f"{verdict['would']}: {reasons[0]['text']}")
    for scan in truth["scanners"]:
        found = first.get((scan["tool"], scan["ip"]))
        yield Figure(
            f"scan {scan['tool']} {scan['ip']}, {way}", found or "never", "a would-be enforced action, with why", found is not None
        )
    yield Figure(f"ordinary visitors flagged, {way}", f"{len(flagged)} of {truth['visitors']}")


def moment(line: str) -> str:
    """The time of a log line as the truth writes it."""
    day, month, rest = line.split("[", 1)[1].split("]", 1)[0].split("/", 2)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    year, time = rest.split(" ", 1)[0].split(":", 1)
    return f"{year}-{months.index(month) + 1:02}-{day}T{time}Z"


def payments() -> Iterator[Figure]:
    """Card payments without HTTP run to the end."""
    records = WORK / "payments.ndjson"
    run(sys.executable, ROOT / "training/datasets/fraud_handbook.py", "--data", data(), "--out", records)
    expected = sum('"transaction":{' in line for line in records.open(encoding="utf-8"))
    schema, policy = ROOT / "features/schemas/payments.yaml", WORK / "payments-policy.yaml"
    policy.write_text("version: 1\nmode: monitor\nrules: []\n", encoding="utf-8")
    report = json.loads(run(TELLTALE, "replay", records, "--schema", schema, "--policy", policy, "--output", "json"))
    yield Figure("card payments replayed", f"{report['transactions']:,}", f"{expected:,}, none malformed", complete(report, expected))
    yield Figure("card payments, rate", f"{report['rate']:,.0f} tx/s")


def complete(report: dict[str, Any], expected: int) -> bool:
    """Whether a replay took every transaction."""
    return bool(report["transactions"] == expected and report["malformed"] == 0 and expected > 0)


def suite(tests: str, **environment: str) -> None:
    """Runs the tests whose name matches a pattern, with these variables; raises when one fails or there is none."""
    selection = ("--release", "--locked", "--workspace", "--lib", "--tests")
    variables = (f"{name}={value}" for name, value in environment.items())
    run("env", *variables, "cargo", "nextest", "run", *selection, "--no-tests", "fail", "-E", f"test(/{tests}/)")


def parity() -> Iterator[Figure]:
    """Replay says again what was said live."""
    suite("^parity::")
    yield Figure("parity: 2,000 transactions over 8 connections, 1 and 2 threads", "equal", "bitwise equal", holds=True)


def simulator() -> Iterator[Figure]:
    """What is simulated is what the proxy sends."""
    suite("^simulator::")
    yield Figure("simulated against sent through the proxy: 3,000 requests", "equal", "field by field", holds=True)


CHECKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "parity": parity,
    "simulator": simulator,
    "scans": scans,
    "payments": payments,
    "demo": demo,
    "eval": evaluation,
    "bench": bench,
}


def figures(name: str) -> Iterator[Figure]:
    """The figures of one check as they come; what cannot be measured is absent, which misses its bar."""
    try:
        yield from CHECKS[name]()
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        yield Figure(name, f"absent: {error}", "measured", holds=False)


def show(figure: Figure) -> None:
    """Prints one figure beside its bar."""
    mark = {None: " ", True: "✓", False: "✗"}[figure.holds]
    bar = f"   [{figure.bar}]" if figure.bar else ""
    print(f"{mark} {figure.name:<62} {figure.value}{bar}", flush=True)


def main() -> int:
    """Runs the checks named, all by default; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], default=[], help="which; all by default")
    names = parser.parse_args().checks or list(CHECKS)
    WORK.mkdir(parents=True, exist_ok=True)
    everything: list[Figure] = []
    for name in names:
        for figure in figures(name):
            show(figure)
            everything.append(figure)
    (WORK / "path.json").write_text(
        json.dumps([asdict(figure) for figure in everything], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    missed = sum(figure.holds is False for figure in everything)
    print(f"{len(everything)} figures, {missed} missed or absent")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
