"""Turns the `web_scan_logs` set into access-log lines in the combined format.

Enters: `requests.csv.gz` of both parts. Leaves: one log in time order on the given path, and beside it `<path>.truth.json`
with the scans: tool, address, first and last request (one address was used by two tools at different hours). Never changes a
path, a status or a user agent.
"""

import argparse
import csv
import gzip
import json
import sys
from datetime import datetime
from pathlib import Path

from absent import require


def log_line(row: dict[str, str]) -> str:
    """One request in the combined log format, as Apache and nginx write it."""
    stamp = datetime.fromisoformat(row["ts"].replace("Z", "+00:00")).strftime("%d/%b/%Y:%H:%M:%S %z")
    path, referer, agent = (quoted(row[name]) for name in ("path", "referer", "ua"))
    size = row["bytes"] or "-"
    return f'{row["ip"]} - - [{stamp}] "{row["method"]} {path} HTTP/1.1" {row["status"]} {size} "{referer or "-"}" "{agent or "-"}"'


def scans(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Each scanner at each of its addresses: tool, ip, first and last request, number of requests."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["label"] == "1":
            found.setdefault((row["source"], row["ip"]), []).append(row["ts"])
    return [
        {"tool": tool, "ip": ip, "first": min(times), "last": max(times), "requests": len(times)}
        for (tool, ip), times in sorted(found.items())
    ]


def quoted(text: str) -> str:
    """Backslash-escapes what would end a quoted field, as the servers do."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")


def main() -> int:
    """Writes the log and its truth; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds web_scan_logs/")
    parser.add_argument("--out", type=Path, required=True, help="access log to write")
    arguments = parser.parse_args()
    rows: list[dict[str, str]] = []
    for part in ("dev", "test"):
        source = require(arguments.data / "web_scan_logs" / part / "requests.csv.gz")
        with gzip.open(source, "rt", encoding="utf-8", newline="") as lines:
            rows.extend(csv.DictReader(lines))
    rows.sort(key=lambda row: row["ts"])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8") as out:
        out.writelines(log_line(row) + "\n" for row in rows)
    scanners = scans(rows)
    visitors = len({row["ip"] for row in rows if row["label"] == "0"})
    truth = {"scanners": scanners, "visitors": visitors, "lines": len(rows)}
    Path(f"{arguments.out}.truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} lines, {len(scanners)} scans, {visitors} other addresses: {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
