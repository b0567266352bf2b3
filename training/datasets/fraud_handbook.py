"""Turns the `fraud_handbook` card payments into telltale records: transactions without HTTP, and labels seven days later.

Enters: the monthly CSV files. Leaves: NDJSON, one record a line, in time order. The fraud scenario is never written: it is
analysis, not a feature.
"""

import argparse
import csv
import gzip
import heapq
import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from absent import require

LABEL_DELAY = timedelta(days=7)


def payments(folder: Path) -> Iterator[tuple[datetime, dict[str, str], bool]]:
    """Each payment with its time and whether it was fraud, in the order of the files."""
    for source in sorted(require(folder).glob("tx_*.csv.gz")):
        labels = folder / source.name.replace("tx_", "labels_")
        with gzip.open(source, "rt", newline="") as left, gzip.open(labels, "rt", newline="") as right:
            for row, label in zip(csv.DictReader(left), csv.DictReader(right), strict=True):
                if row["TRANSACTION_ID"] != label["TRANSACTION_ID"]:
                    raise ValueError(f"{source.name}: transaction {row['TRANSACTION_ID']} stands beside label {label['TRANSACTION_ID']}")
                yield datetime.fromisoformat(row["TX_DATETIME"]), row, label["TX_FRAUD"] == "1"


def transaction(at: datetime, row: dict[str, str]) -> dict[str, object]:
    """A payment as the canonical JSON of a record."""
    return {
        "transaction": {
            "id": f"fh-{row['TRANSACTION_ID']}",
            "time": stamp(at),
            "identity": {"fields": {"card": row["CUSTOMER_ID"], "terminal": row["TERMINAL_ID"]}},
            "attributes": {"amount": {"number": float(row["TX_AMOUNT"])}},
            "service": "payments",
        }
    }


def finding(at: datetime, row: dict[str, str], fraud: bool) -> dict[str, object]:
    """Its label as the canonical JSON of a record."""
    kind = "LABEL_KIND_FRAUD" if fraud else "LABEL_KIND_BENIGN"
    return {"label": {"transactionId": f"fh-{row['TRANSACTION_ID']}", "time": stamp(at), "kind": kind}}


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> int:
    """Writes the records; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fraud_handbook/")
    parser.add_argument("--out", type=Path, required=True, help="NDJSON file to write")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many payments; 0: all")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    waiting: list[tuple[datetime, int, str]] = []
    count = 0
    with arguments.out.open("w", encoding="utf-8") as out:
        for at, row, fraud in payments(arguments.data / "fraud_handbook" / "dev"):
            while waiting and waiting[0][0] <= at:
                out.write(heapq.heappop(waiting)[2])
            out.write(json.dumps(transaction(at, row), separators=(",", ":")) + "\n")
            known = at + LABEL_DELAY
            heapq.heappush(waiting, (known, count, json.dumps(finding(known, row, fraud), separators=(",", ":")) + "\n"))
            count += 1
            if count == arguments.limit:
                break
        while waiting:
            out.write(heapq.heappop(waiting)[2])
    print(f"{count} payments: {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
