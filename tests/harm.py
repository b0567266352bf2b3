"""Shows that the corpus of hostile models is hostile: each file that claims to do harm runs in a worker without judge, limits and filter.

`python tests/harm.py FOLDER` builds the corpus there and writes `target/check/harm.json`: for each class how many of its files did the
harm that they claim, and what was seen. Enters: the built `telltale`, ONNX Runtime. A file does harm when it takes more memory than the
harmless model by `MEMORY`, more time than `SECONDS`, scores one row twice differently, or gives no number. Workers are bounded from
outside, and ended by id.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import hostile
from hostile_broken import FEATURES

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target" / "check" / "harm.json"
# Harm: bytes beyond the harmless model, seconds for loading and two rows.
MEMORY, SECONDS = 128 << 20, 1.0
# What a worker may take at most here: so much that it shows, not so much that the machine suffers.
ADDRESS_SPACE, PATIENCE = 8 << 30, 5.0
ORDINARY = (1.0, 2.0, 3.0)
# What a caller sends to a model that does harm by what it is sent: its square is a count of elements, its exponential is infinite.
LARGE = (14_000.0, 14_000.0, 14_000.0)
READY, SCORES = 0, 1


class Seen(NamedTuple):
    """What a model did: peak memory in bytes, seconds, its scores of two equal rows, what the worker said, whether it ended in time."""

    memory: int
    seconds: float
    scores: tuple[float, ...]
    said: str
    ended: bool


class Worker:
    """`telltale model-worker --unlocked` and the socket that it is asked through."""

    def __init__(self, folder: Path) -> None:
        """Starts it in that folder."""
        ours, theirs = socket.socketpair()
        library = os.environ.get("ORT_DYLIB_PATH", str(ROOT / "target/onnxruntime/libonnxruntime.so"))
        command = [str(ROOT / "target/release/telltale"), "model-worker", "--runtime", library, "--memory-mb", "1024", "--unlocked"]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"ORT_DISABLE_TELEMETRY": "1"},
        )
        theirs.close()
        self.socket = ours
        try:
            resource.prlimit(self.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            self.socket.settimeout(30)
            self.receive()
        except BaseException:
            self.end()
            raise

    def receive(self) -> bytes:
        """One answer."""

        def exactly(count: int) -> bytes:
            got = b""
            while len(got) < count:
                more = self.socket.recv(count - len(got))
                if not more:
                    raise OSError("the worker is gone")
                got += more
            return got

        (length,) = struct.unpack("<I", exactly(4))
        return exactly(length)

    def ask(self, body: bytes, until: float) -> bytes:
        """One request and its answer, until that moment."""
        self.socket.settimeout(max(until - time.monotonic(), 0.01))
        self.socket.sendall(struct.pack("<I", len(body)) + body)
        return self.receive()

    def peak(self) -> int:
        """The most memory that it ever had, bytes; 0 once it is gone."""
        with contextlib.suppress(OSError, StopIteration, IndexError):
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) << 10
        return 0

    def end(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait(10)
        self.socket.close()


def load(model: bytes) -> bytes:
    """The request that loads a model of the corpus."""
    spec = json.dumps({"inputs": list(FEATURES), "output": {}}).encode()
    return b"\0" + struct.pack("<I", len(spec)) + spec + model


def score(row: tuple[float, ...]) -> bytes:
    """The request that scores one row."""
    return b"\1" + struct.pack("<I", 1) + struct.pack(f"<{len(row)}f", *row)


def tried(model: bytes, row: tuple[float, ...], folder: Path) -> Seen:
    """Loads a model and scores a row twice."""
    begin = time.monotonic()
    scores: list[float] = []
    said, ended, memory, seconds = "", False, 0, 0.0
    worker: Worker | None = None
    try:
        worker = Worker(folder)
        begin = time.monotonic()
        answer = worker.ask(load(model), begin + PATIENCE)
        for _ in range(2):
            if answer[0] not in (READY, SCORES):
                break
            answer = worker.ask(score(row), begin + PATIENCE)
            if answer[0] == SCORES:
                scores += struct.unpack(f"<{(len(answer) - 1) // 8}d", answer[1:])
        said = "" if answer[0] in (READY, SCORES) else answer[1:].decode(errors="replace")
        ended = True
    except TimeoutError:
        said = f"not done after {PATIENCE:.0f} s"
    except OSError as error:
        said = f"its process ended: {error}"
    finally:
        if worker:
            memory, seconds = worker.peak(), time.monotonic() - begin
            worker.end()
    return Seen(memory, seconds, tuple(scores), said, ended)


def did(harm: str, seen: Seen, harmless: Seen) -> bool:
    """Whether it did the harm that it claims."""
    scores = seen.scores
    if harm == "memory":
        return seen.memory > harmless.memory + MEMORY
    if harm == "time":
        return seen.seconds > harmless.seconds + SECONDS
    if harm == "random":
        return len(scores) > 1 and scores[0] != scores[1]
    return harm == "nan" and any(not math.isfinite(score) for score in scores)


def main() -> int:
    """Runs the corpus; 1 when a class does no harm."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    _, claims = hostile.build(folder)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    harmless = tried(hostile.hostile_broken.good().SerializeToString(), ORDINARY, work)
    print(f"harmless: {harmless}", flush=True)
    if not harmless.scores:
        raise SystemExit(f"nothing can be held against the harmless model, which was not scored: {harmless.said}")
    classes: dict[str, dict[str, object]] = {}
    for file, claim in claims.items():
        row = LARGE if claim["class"] in ("memory by input", "no number") else ORDINARY
        seen = tried((folder / file).read_bytes(), row, work)
        harmed = did(claim["harm"], seen, harmless)
        about = f"{seen.memory >> 20} MiB, {seen.seconds:.2f} s, scores {seen.scores}, {seen.said[:120]}"
        print(f"{'harm' if harmed else 'NONE'}: {claim['class']}: {claim['harm']}: {file}: {about}", flush=True)
        found = classes.setdefault(claim["class"], {"harm": claim["harm"], "files": 0, "did": 0})
        found["files"] = int(str(found["files"])) + 1
        found["did"] = int(str(found["did"])) + harmed
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")
    idle = [name for name, found in classes.items() if not found["did"]]
    did_harm = sum(int(str(found["did"])) for found in classes.values())
    print(f"{did_harm} files in {len(classes) - len(idle)} of {len(classes)} classes do harm where nothing stops them; without: {idle}")
    return 1 if idle else 0


if __name__ == "__main__":
    sys.exit(main())
