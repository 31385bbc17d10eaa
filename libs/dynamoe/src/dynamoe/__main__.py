"""The command `dynamoe`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dynamoe.errors import DynamoeError
from dynamoe.report import write_report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dynamoe", description="Mixture-of-experts layers that follow their load.")
    commands = parser.add_subparsers(required=True)
    report = commands.add_parser("report", help="draw a run: expert load, capacity, recompilations")
    report.add_argument("run", type=Path, help="JSON lines of dynamoe.record.RunRecorder")
    report.add_argument("--out", type=Path, help="an .html or .png file; run.html by default")
    given = parser.parse_args(arguments)
    target = given.out or given.run.with_suffix(".html")
    try:
        write_report(given.run, target)
    except DynamoeError as error:
        print(f"dynamoe: {error}", file=sys.stderr)
        return 2
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
