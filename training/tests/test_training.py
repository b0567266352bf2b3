"""The trainer from feature file to repository, on made-up rows."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from telltale_training import boosted, calibrate, export, frame, generated, metrics
from telltale_training.publish import publish

CONFIG = Path(__file__).parent.parent / "config.toml"


def settings() -> boosted.Settings:
    section = tomllib.loads(CONFIG.read_text())["boosted"]
    return replace(boosted.Settings.of(section), trees=20, leaves=8)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> frame.Frame:
    path = tmp_path_factory.mktemp("features") / "features.parquet"
    generated.write(path, 5, 6000)
    return frame.read([path])


def test_a_feature_file_is_read_with_hashes_labels_and_missing_values(rows: frame.Frame) -> None:
    assert rows.names == list(generated.NAMES)
    assert rows.hashes[2] == generated.hash_of(2)
    assert rows.schema == "00000000f00d0000"
    assert np.isnan(rows.values[:, 3]).any() and not np.isnan(rows.values[:, 0]).any()
    assert set(rows.labels) == {"benign", "abuse"}
    assert (np.diff(rows.times) >= 0).all()


def test_excluded_features_are_left_out(tmp_path: Path) -> None:
    generated.write(tmp_path / "f.parquet", 1, 10)
    read = frame.read([tmp_path / "f.parquet"], ["address.*", "*.age_days"])
    assert read.names == ["session.paths_10m", "endpoint.failure_ratio_1h", "request.body_size"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "time_us": [1]}), tmp_path / "x.parquet")
    with pytest.raises(frame.FrameError, match=r"telltale\.features"):
        frame.read([tmp_path / "x.parquet"])
    with pytest.raises(frame.FrameError, match="no feature file"):
        frame.read([])


def test_files_of_two_schemas_do_not_mix(tmp_path: Path) -> None:
    generated.write(tmp_path / "a.parquet", 1, 10)
    table = pq.read_table(tmp_path / "a.parquet")
    hashes = json.loads(table.schema.metadata[b"telltale.features"]) | {"user.age_days": "0000000000000001"}
    metadata = dict(table.schema.metadata) | {b"telltale.features": json.dumps(hashes)}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "b.parquet")
    with pytest.raises(frame.FrameError, match="not those of"):
        frame.read([tmp_path / "a.parquet", tmp_path / "b.parquet"])


@pytest.mark.parametrize("value", [0.1, -0.1, 1e-35, 3.0, 16777217.0, -16777217.0, 0.30000001192092896])
def test_thresholds_are_never_rounded_up(value: float) -> None:
    low = export.round_down(value)
    assert low <= value
    assert float(np.nextafter(np.float32(low), np.float32(np.inf), dtype=np.float32)) > value


def test_the_exported_model_agrees_with_the_trainer_next_to_every_threshold(rows: frame.Frame) -> None:
    chosen = settings()
    narrow = boosted.narrow(rows.values, chosen.missing)
    booster = boosted.fit(narrow, rows.labels == "abuse", chosen)
    dump = booster.dump_model()
    edges: list[np.typing.NDArray[np.float32]] = []

    def walk(node: dict[str, object]) -> None:
        if "split_feature" in node:
            at = np.float32(export.round_down(float(node["threshold"])))  # type: ignore[arg-type]
            for value in (at, np.nextafter(at, np.float32(np.inf), dtype=np.float32)):
                row = narrow[len(edges) % len(narrow)].copy()
                row[int(node["split_feature"])] = value  # type: ignore[call-overload]
                edges.append(row)
            walk(node["left_child"])  # type: ignore[arg-type]
            walk(node["right_child"])  # type: ignore[arg-type]

    for tree in dump["tree_info"]:
        walk(tree["tree_structure"])
    tried = np.concatenate([narrow[:500], np.stack(edges)])
    model = export.boosted(dump, len(rows.names)).SerializeToString(deterministic=True)
    expected = booster.predict(tried.astype(np.float64), num_threads=1)
    assert np.abs(boosted.run_batch(model, tried) - expected).max() < 1e-5


def test_the_same_rows_and_seed_give_the_same_version(rows: frame.Frame, tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        assert publish(tmp_path / name, "abuse", boosted.train(rows, settings())) == 1
        files = sorted((tmp_path / name / "abuse" / "versions" / "1").iterdir())
        digests.append([(file.name, blake3(file.read_bytes()).hexdigest()) for file in files])
    assert digests[0] == digests[1]
    manifest = tomllib.loads((tmp_path / "a/abuse/versions/1/manifest.toml").read_text())
    assert dict(digests[0])["model.onnx"] == manifest["files"]["model.onnx"]
    assert manifest["metrics"]["roc_auc"] > 0.9
    assert [one["hash"] for one in manifest["inputs"]] == rows.hashes


def test_publishing_again_keeps_the_version_before(rows: frame.Frame, tmp_path: Path) -> None:
    draft = boosted.train(rows, settings())
    assert [publish(tmp_path, "abuse", draft) for _ in range(2)] == [1, 2]
    policy = tomllib.loads((tmp_path / "abuse/policy.toml").read_text())
    assert policy == {"aliases": {"champion": 2, "previous": 1}}


def test_without_labels_there_is_no_model(rows: frame.Frame) -> None:
    plain = replace(rows, labels=np.array([""] * rows.rows))
    with pytest.raises(ValueError, match="labelled abuse"):
        boosted.train(plain, settings())


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ValueError, match="treez"):
        boosted.Settings.of(tomllib.loads(CONFIG.read_text())["boosted"] | {"treez": 3})


def test_calibration_rises_and_is_the_share_of_abuse() -> None:
    rng = np.random.default_rng(3)
    raw = rng.random(40_000)
    knots = calibrate.isotonic(raw, rng.random(40_000) < raw**2)
    assert len(knots) <= 256
    assert all(0 < value < 1 for _, value in knots)
    at = np.interp([0.2, 0.5, 0.9], *np.array(knots).T)
    assert np.abs(at - np.array([0.04, 0.25, 0.81])).max() < 0.04
    calibrate.table(knots, 40_000)
    with pytest.raises(ValueError, match="do not rise"):
        calibrate.table([(0.1, 0.5), (0.2, 0.4)], 2)
    with pytest.raises(ValueError, match="both kinds"):
        calibrate.isotonic(raw, np.zeros(40_000, dtype=np.bool_))


def test_figures_on_a_case_worked_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.1])
    found = metrics.figures(scores, np.array([True, False, True, False, False]))
    assert found["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert found["roc_auc"] == pytest.approx((3 + 0.5 + 1) / 6)
    assert found["recall_at_fpr_0_001"] == 0.5
    assert metrics.figures(scores, np.zeros(5, dtype=np.bool_)) == {}
