"""`python -m telltale_training --features FILE… --repository FOLDER`: trains the boosted model and publishes it."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

from telltale_training import boosted, frame
from telltale_training.publish import publish


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="telltale_training", description=__doc__)
    parser.add_argument("--features", type=Path, nargs="+", required=True, help="what `telltale replay --features` wrote")
    parser.add_argument("--repository", type=Path, required=True, help="model repository to publish into")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent.parent / "config.toml")
    arguments = parser.parse_args()
    try:
        config = tomllib.loads(arguments.config.read_text())
        settings = boosted.Settings.of(config["boosted"])
        rows = frame.read(arguments.features, config["features"]["exclude"])
        draft = boosted.train(rows, settings)
        version = publish(arguments.repository, settings.name, draft)
    except (OSError, KeyError, ValueError) as error:
        print(f"telltale_training: {error}", file=sys.stderr)
        return 1
    figures = ", ".join(f"{name} {value:.4f}" for name, value in draft.metrics.items())
    print(f"{settings.name} version {version}: {len(draft.inputs)} inputs, {len(draft.model)} bytes; {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
