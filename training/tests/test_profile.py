"""The profile of a training window: the same bins as the scorer's."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
from blake3 import blake3

from telltale_training import boosted, frame, generated, profile
from telltale_training.publish import publish

CONFIG = Path(__file__).parent.parent / "config.toml"


def test_tenths_are_even_and_every_value_is_counted() -> None:
    made = profile.bins(np.arange(1000.0))
    assert len(made["edges"]) == 9 and len(made["counts"]) == 10
    assert sum(made["counts"]) == 1000 and all(99 <= count <= 101 for count in made["counts"])


def test_a_value_that_fills_two_tenths_has_a_bin_of_its_own() -> None:
    made = profile.bins(np.array([1.0] * 90 + [5.0] * 10))
    # Nothing lies below what was always there; a value that comes there must be seen.
    assert made["counts"] == [0, 90, 10]
    assert made["edges"] == [np.nextafter(1.0, 0.0), 1.0]
    assert profile.bins(np.array([np.nan])) == {"edges": [], "counts": [0]}


def test_infinite_values_are_counted_in_the_outer_bins() -> None:
    made = profile.bins(np.concatenate([[-np.inf, np.inf, np.inf, np.nan], np.arange(100.0)]))
    assert len(made["edges"]) == 9 and np.isfinite(made["edges"]).all()
    assert made["counts"][0] == 11 and made["counts"][-1] == 12 and sum(made["counts"]) == 103
    assert profile.bins(np.array([np.inf])) == {"edges": [], "counts": [1]}
    assert profile.bins(np.full(5, -np.finfo(np.float64).max))["counts"] == [5, 0]


def test_a_published_version_brings_the_profile_of_its_training_window(tmp_path: Path) -> None:
    generated.write(tmp_path / "features.parquet", 5, 6000)
    section = tomllib.loads(CONFIG.read_text())["boosted"]
    settings = boosted.Settings.of({**section, "trees": 20, "leaves": 8})
    rows = frame.read([tmp_path / "features.parquet"])
    publish(tmp_path / "models", "abuse", boosted.train(rows, settings))
    version = tmp_path / "models/abuse/versions/1"
    manifest = tomllib.loads((version / "manifest.toml").read_text())
    written = (version / "profile.json").read_bytes()
    assert manifest["files"]["profile.json"] == blake3(written).hexdigest()
    made = json.loads(written)
    assert [one["name"] for one in made["inputs"]] == [one["name"] for one in manifest["inputs"]]
    assert made["rows"] == 3600 and sum(made["score"]["counts"]) == 1200
    missing = {one["name"]: one["missing"] for one in made["inputs"]}
    for at, name in enumerate(rows.names):
        assert missing[name] == np.isnan(rows.values[:3600, at]).sum()
    assert all(sum(one["bins"]["counts"]) + one["missing"] == 3600 for one in made["inputs"])
