"""Builds models/fixtures/torch: an autoencoder as PyTorch exports it, with what PyTorch says of 1,000 rows.

`make train-torch` runs it, in an environment of its own (training/requirements-torch.txt). The tests read only what it wrote: they need no
PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from export_rows import NAMES, ROWS, SEED, Rows, filled, made, usual

FOLDER = Path(__file__).parent.parent / "models" / "fixtures" / "torch"
HIDDEN, NARROW = 6, 3
STEPS, RATE = 600, 0.01
OPSET = 18


class Autoencoder(nn.Module):
    """float32 rows [n, features] → reconstruction error [n]: the mean square over the scaled features.

    Counts are heavy-tailed, so they are scaled as logarithms; an error of many squares would leave float32 no digits to agree in.
    """

    middle: torch.Tensor
    spread: torch.Tensor

    def __init__(self, learn: Rows) -> None:
        """Scales as these rows need it; the scale becomes part of the model."""
        super().__init__()
        logs = np.log1p(learn)
        self.register_buffer("middle", torch.from_numpy(logs.mean(axis=0)))
        self.register_buffer("spread", torch.from_numpy(logs.std(axis=0)))
        width = learn.shape[1]
        self.encode = nn.Sequential(nn.Linear(width, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, NARROW))
        self.decode = nn.Sequential(nn.Linear(NARROW, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, width))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The error of each row."""
        scaled = (torch.log1p(rows.clamp(min=0)) - self.middle) / self.spread
        return ((self.decode(self.encode(scaled)) - scaled) ** 2).mean(dim=1)


def trained(learn: Rows) -> Autoencoder:
    """Learns to rebuild ordinary rows; the seed decides everything on one processor."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    model, rows = Autoencoder(learn), torch.from_numpy(learn)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        model(rows).mean().backward()
        optimiser.step()
    return model.eval()


def exported(model: Autoencoder, some: torch.Tensor) -> onnx.ModelProto:
    """As PyTorch exports it, for any number of rows, without the places in this machine's files that it notes at every node."""
    program = torch.onnx.export(
        model,
        (some,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["rows"],
        output_names=["error"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )
    proto = program.model_proto
    for noted in (
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.initializer,
    ):
        del noted.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def main() -> None:
    """Builds it afresh."""
    (learn, attack), (rows, _) = made(SEED, 4_000), made(SEED + 1, ROWS)
    middle = usual(learn)
    model = trained(filled(learn[attack == 0], middle))
    asked = torch.from_numpy(filled(rows, middle))
    with torch.no_grad():
        expected = model(asked).numpy().astype(np.float64)
    proto = exported(model, asked[:2])
    onnx.helper.set_model_props(
        proto,
        {
            "telltale.inputs": ",".join(NAMES),
            "telltale.missing": "usual",
            "telltale.usual": ",".join(str(float(value)) for value in middle),
            "telltale.output": "score",
        },
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "autoencoder.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    columns = {name: pa.array(rows[:, at].astype(np.float64), from_pandas=True) for at, name in enumerate(NAMES)}
    pq.write_table(pa.table(columns | {"expected.autoencoder": pa.array(expected)}), FOLDER / "autoencoder.parquet")
    print(f"autoencoder: error of the median row {np.median(expected):.3f}, of the highest {expected.max():.3f}")


if __name__ == "__main__":
    main()
