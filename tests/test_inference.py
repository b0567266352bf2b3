"""A foreign client of the Open Inference Protocol: Triton's own asks a running scorer, and ONNX Runtime in Python says the same.

Needs `make build` (or `TELLTALE` with the path of another build) and ONNX Runtime; a missing one fails with what to run.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).resolve().parent.parent
TELLTALE = Path(os.environ.get("TELLTALE", ROOT / "target/release/telltale"))
RUNTIME = Path(os.environ.get("ORT_DYLIB_PATH", ROOT / "target/onnxruntime/libonnxruntime.so"))
EXPORTS = ROOT / "models/fixtures/exports"
# As tests/src/process.rs has it: where no client's own port lies.
PORTS = range(10_240, 20_240)
ROWS = 1_000
AGREE = 1e-5
FEATURES = [
    "session.objects_10m",
    "address.requests_1m",
    "address.users_failed_10m",
    "user.requests_24h",
    "address.failed_logins_24h",
    "session.gap_mean_10m",
    "user.addresses_24h",
    "address.error_ratio_10m",
]
CONFIG = """
data = "{data}"
[scoring]
listen = "127.0.0.1:{ports[0]}"
[admin]
listen = "127.0.0.1:{ports[1]}"
[metrics]
listen = "127.0.0.1:{ports[2]}"
[models]
path = "{models}"
runtime = "{runtime}"
deadline_ms = 1000
"""

Matrix = NDArray[np.float64]


def free_port(held: contextlib.ExitStack) -> int:
    """A free loopback port that no other process of these suites gets while this one lives."""
    folder = Path(tempfile.gettempdir()) / f"telltale-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    begin = os.getpid() % len(PORTS)
    ports: list[int] = [*PORTS[begin:], *PORTS[:begin]]
    for port in ports:
        claim: IO[bytes] = (folder / str(port)).open("wb")
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("127.0.0.1", port))
            held.enter_context(claim)
            return port
        claim.close()
    raise AssertionError(f"no port of {PORTS} is free on loopback")


def repository(folder: Path) -> Path:
    """The shipped forest, and two exports as foreign models, each in force."""
    models = folder / "models"
    shutil.copytree(ROOT / "models/default/unusual", models / "unusual")
    for name in ("lightgbm", "scaled_network"):
        file = EXPORTS / f"{name}.onnx"
        command: list[str | Path] = [TELLTALE, "models", "publish", name, file, "--models", models]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ORT_DYLIB_PATH": str(RUNTIME)}, check=False)
        assert done.returncode == 0, done.stderr
        (models / name / "policy.toml").write_text("[aliases]\nchampion = 1\n", encoding="utf-8")
    return models


def await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits until the scorer says that it is ready."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, f"the scorer ended\n{log.read_text(encoding='utf-8', errors='replace')}"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            if answer.status == HTTPStatus.OK:
                return
        time.sleep(0.05)
    raise AssertionError(f"the scorer is not ready after a minute\n{log.read_text(encoding='utf-8', errors='replace')}")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.InferenceServerClient]:
    """Triton's client of a scorer with three models."""
    assert TELLTALE.is_file(), f"{TELLTALE} is absent: run `make build`"
    assert RUNTIME.is_file(), f"{RUNTIME} is absent: run training/setup_ort.sh"
    folder = tmp_path_factory.mktemp("inference")
    with contextlib.ExitStack() as held:
        ports = [free_port(held) for _ in range(3)]
        text = CONFIG.format(data=folder / "data", ports=ports, models=repository(folder), runtime=RUNTIME)
        (folder / "telltale.toml").write_text(text, encoding="utf-8")
        log = folder / "log"
        process = subprocess.Popen(
            [TELLTALE, "serve", "--config", folder / "telltale.toml"], stdout=held.enter_context(log.open("wb")), stderr=subprocess.STDOUT
        )
        try:
            await_ready(process, ports[2], log)
            yield triton.InferenceServerClient(f"127.0.0.1:{ports[0]}")
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Rows of the exports' features in their order, some with missing values."""
    table = pq.read_table(EXPORTS / "rows.parquet", columns=FEATURES)
    rows = np.column_stack([table.column(name).to_numpy(zero_copy_only=False) for name in FEATURES]).astype(np.float64)
    assert rows.shape == (ROWS, len(FEATURES))
    rows[::17, 3] = np.nan
    return rows


def as_matrix(rows: Matrix) -> list[triton.InferInput]:
    """All features in one tensor of float32."""
    tensor = triton.InferInput("features", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows.astype(np.float32))
    return [tensor]


def as_columns(rows: Matrix) -> list[triton.InferInput]:
    """One tensor of float64 a feature, the last first."""
    tensors = []
    for at, name in reversed(list(enumerate(FEATURES))):
        tensor = triton.InferInput(name, [len(rows), 1], "FP64")
        tensor.set_data_from_numpy(np.ascontiguousarray(rows[:, at : at + 1]))
        tensors.append(tensor)
    return tensors


def in_python(name: str, rows: Matrix) -> Matrix:
    """The second class's probability as ONNX Runtime in this process has it; a missing value as the model's metadata says."""
    session = onnxruntime.InferenceSession(EXPORTS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["telltale.inputs"].split(",") == FEATURES
    if properties["telltale.missing"] == "usual":
        usual = [float(value) for value in properties["telltale.usual"].split(",")]
        rows = np.where(np.isnan(rows), usual, rows)
    (input_,) = session.get_inputs()
    dtype = np.float64 if "double" in input_.type else np.float32
    (probabilities,) = session.run(["probabilities"], {input_.name: rows.astype(np.float32).astype(dtype)})
    if isinstance(probabilities, list):
        return np.array([row[1] for row in probabilities], dtype=np.float64)
    return np.asarray(probabilities, dtype=np.float64)[:, 1]


def test_what_the_server_and_its_models_are(client: triton.InferenceServerClient) -> None:
    """Live, ready, and every model with its inputs in their order."""
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata().name == "telltale"
    assert client.is_model_ready("unusual") and client.is_model_ready("lightgbm", "1")
    assert not client.is_model_ready("lightgbm", "2") and not client.is_model_ready("nobody")
    lightgbm = client.get_model_metadata("lightgbm")
    assert (lightgbm.platform, list(lightgbm.versions)) == ("onnxruntime_onnx", ["1"])
    assert [tensor.name for tensor in lightgbm.inputs] == FEATURES
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in lightgbm.outputs] == [
        ("raw", "FP64", [-1]),
        ("calibrated", "FP64", [-1]),
    ]
    assert client.get_model_metadata("unusual").platform == "telltale_forest"


@pytest.mark.parametrize(("name", "form"), [("lightgbm", as_matrix), ("scaled_network", as_columns)])
def test_scores_are_those_of_onnx_runtime(
    client: triton.InferenceServerClient, rows: Matrix, name: str, form: Callable[[Matrix], list[triton.InferInput]]
) -> None:
    """A thousand rows in one call, by either form of input."""
    answer = client.infer(name, form(rows), request_id="mine", outputs=[triton.InferRequestedOutput("raw")])
    raw, expected = answer.as_numpy("raw"), in_python(name, rows)
    assert answer.get_response().id == "mine"
    assert raw.shape == (ROWS,)
    assert np.abs(raw - expected).max() <= AGREE
    assert np.ptp(expected) > 0.1, "rows that all score alike would prove nothing"
    assert answer.as_numpy("calibrated") is None


def test_a_score_that_means_nothing_yet_says_so(client: triton.InferenceServerClient, rows: Matrix) -> None:
    """A model that is not calibrated on this site has no calibrated scores."""
    answer = client.infer("lightgbm", as_matrix(rows[:3]))
    calibrated = answer.get_output("calibrated")
    assert calibrated.parameters["calibration"].string_param == "calibrating"
    assert np.isnan(answer.as_numpy("calibrated")).all()


def test_refusals_say_what_is_allowed(client: triton.InferenceServerClient, rows: Matrix) -> None:
    """Unknown models and shapes that do not fit."""
    with pytest.raises(InferenceServerException, match="model `nobody` is not loaded; loaded: lightgbm"):
        client.infer("nobody", as_matrix(rows[:1]))
    with pytest.raises(InferenceServerException, match=r"`inputs\[0\].shape` is \[1, 7\]; allowed: \[rows, 8\]"):
        client.infer("lightgbm", as_matrix(rows[:1, :7]))
