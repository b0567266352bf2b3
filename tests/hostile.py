"""Builds the corpus of hostile and broken models: one file a case, `expected.json` with the guard that must stop each, and `harm.json` with
the class of each that does harm where nothing stops it, and which harm.

`python tests/hostile.py FOLDER`. Every file is small or made by repetition; none of them does anything outside the process that runs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hostile_broken
import hostile_harm


def build(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Writes every case; the guard of each file, and the class and harm of those that do any."""
    expected, harm = {}, {}
    for at, case in enumerate([*hostile_broken.CASES, *hostile_harm.CASES]):
        safe = "".join(letter if letter.isalnum() else "-" for letter in case.name.lower())[:40]
        file = f"h{at:02}-{safe}.onnx"
        (folder / file).write_bytes(case.build())
        expected[file] = case.guard
        if case.harm:
            harm[file] = {"class": case.kind, "harm": case.harm}
    return expected, harm


def main() -> None:
    """Writes the corpus, a harmless model beside it, and what is expected."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    expected, harm = build(folder)
    (folder / "harmless.onnx").write_bytes(hostile_broken.good().SerializeToString())
    for name, content in (("expected.json", expected), ("harm.json", harm)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    classes = {one["class"] for one in harm.values()}
    print(f"{len(expected)} cases by {len(set(expected.values()))} guards; {len(harm)} in {len(classes)} classes do harm without them")


if __name__ == "__main__":
    main()
