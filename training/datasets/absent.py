"""Says clearly when a data set is not there."""

import sys
from pathlib import Path


def require(path: Path) -> Path:
    """The path itself if it exists; otherwise ends the program with exit code 3 and a line that starts with `absent:`."""
    if not path.exists():
        print(f"absent: {path}; set TELLTALE_DATA to the folder that holds the data sets", file=sys.stderr)
        sys.exit(3)
    return path
