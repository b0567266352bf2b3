"""The model repository: a trained version enters, an immutable folder leaves, renamed into place. The layout of `models/src/repository`."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Input:
    """One input of a model: its feature, what is usual, and what stands for a missing value."""

    name: str
    hash: str
    usual: float
    spread: float
    missing: float


@dataclass(frozen=True)
class Draft:
    """A version before it is published."""

    description: str
    licence: str
    training: dict[str, Any]
    inputs: list[Input]
    metrics: dict[str, float]
    model: bytes
    calibration: str
    profile: str
    golden: tuple[NDArray[np.float64], NDArray[np.float64]]
    report: dict[str, Any]


def literal(value: object) -> str:
    """A number, text, or flag in TOML."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def manifest(draft: Draft, files: dict[str, str]) -> str:
    """`manifest.toml`."""
    lines = ['kind = "onnx"', f"description = {literal(draft.description)}", f"licence = {literal(draft.licence)}"]
    sections: dict[str, dict[str, Any]] = {
        "output": {"name": "probability"},
        "training": draft.training,
        "files": files,
        "metrics": draft.metrics,
    }
    for section, values in sections.items():
        lines += ["", f"[{section}]", *(f"{literal(key)} = {literal(value)}" for key, value in values.items())]
    for one in draft.inputs:
        lines += ["", "[[inputs]]", *(f"{key} = {literal(value)}" for key, value in vars(one).items())]
    return "\n".join(lines) + "\n"


def publish(repository: Path, name: str, draft: Draft) -> int:
    """Adds the version under the next free number, promotes it, and returns the number."""
    folder = repository / name
    versions, staging = folder / "versions", folder / ".staging"
    versions.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    (staging / "model.onnx").write_bytes(draft.model)
    (staging / "calibration.json").write_text(draft.calibration)
    (staging / "profile.json").write_text(draft.profile)
    (staging / "report.json").write_text(json.dumps(draft.report, indent=2, sort_keys=True) + "\n")
    rows, raw = draft.golden
    columns = {one.name: pa.array(rows[:, at], from_pandas=True) for at, one in enumerate(draft.inputs)}
    pq.write_table(pa.table({**columns, "raw": raw}), staging / "golden.parquet", compression="snappy")
    files = {path.name: blake3(path.read_bytes()).hexdigest() for path in sorted(staging.iterdir())}
    (staging / "manifest.toml").write_text(manifest(draft, files))
    number = 1 + max((int(path.name) for path in versions.iterdir() if path.name.isdigit()), default=0)
    staging.rename(versions / str(number))
    promote(folder, number)
    return number


def promote(folder: Path, number: int) -> None:
    """Makes a version the champion; the one before it becomes `previous`."""
    path = folder / "policy.toml"
    aliases = tomllib.loads(path.read_text())["aliases"] if path.exists() else {}
    before = aliases.get("champion", aliases.get("previous"))
    lines = ["[aliases]", f"champion = {number}"]
    if before is not None and before != number:
        lines.append(f"previous = {before}")
    aside = folder / "policy.new"
    aside.write_text("\n".join(lines) + "\n")
    aside.replace(path)
