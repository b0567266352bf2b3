"""The shipped models come out of `training/train.sh` again: `models/default` enters, that it is reproducible leaves.

The whole way runs: simulate → replay → train. It needs the built `telltale` (`make build`; TELLTALE names another one).
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from telltale_training import boosted

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "models" / "default"
MODELS = ["abuse", "unusual"]
TOLERANCE = 1e-6
# `cargo test` of the models proves that what stands in the folder still gives its golden rows; here it is made again.
SAY = "the simulator, the features or training/ changed: run `make train` and commit models/default"


def version(repository: Path, model: str) -> Path:
    champion = tomllib.loads((repository / model / "policy.toml").read_text())["aliases"]["champion"]
    return repository / model / "versions" / str(champion)


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    telltale = Path(os.environ.get("TELLTALE", ROOT / "target" / "release" / "telltale"))
    assert telltale.is_file(), f"{telltale} is absent: run `make build`"
    work = tmp_path_factory.mktemp("train")
    environment = os.environ | {"TELLTALE": str(telltale), "TELLTALE_WORK": str(work / "work")}
    done = subprocess.run(
        [str(ROOT / "training" / "train.sh"), str(work / "models")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "models"


@pytest.mark.parametrize("model", MODELS)
def test_training_again_gives_the_shipped_model(regenerated: Path, model: str) -> None:
    shipped, again = version(SHIPPED, model), version(regenerated, model)
    trained_on = json.loads((version(SHIPPED, "abuse") / "report.json").read_text())["cpu"]
    before, after = (tomllib.loads((folder / "manifest.toml").read_text()) for folder in (shipped, again))
    if trained_on == boosted.cpu():
        assert after["files"] == before["files"], SAY
        assert after == before, SAY
        return
    names = [[(one["name"], one["hash"]) for one in manifest["inputs"]] for manifest in (before, after)]
    assert names[0] == names[1], SAY
    rows = [pq.read_table(folder / "golden.parquet") for folder in (shipped, again)]
    apart = [np.abs(rows[0][name].to_numpy() - rows[1][name].to_numpy()) for name in rows[0].column_names]
    assert np.nanmax(apart) <= TOLERANCE, SAY


@pytest.mark.parametrize("model", MODELS)
def test_no_input_tells_the_simulator_from_the_world(model: str) -> None:
    inputs = {one["name"] for one in tomllib.loads((version(SHIPPED, model) / "manifest.toml").read_text())["inputs"]}
    leaks = {"request.hour", "request.lateness", "request.amount", "address.age", "fingerprint.age", "service.requests_1h"}
    assert len(inputs) > 30 and not inputs & leaks
