"""Files that a tool of this folder generates: written, or with --check held against what is there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(wanted: Mapping[Path, str], description: str | None) -> int:
    """Reads the command line; returns the exit status: 1 where --check finds a file that is not up to date."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        script = f"tools/{Path(sys.argv[0]).name}"
        print(f"not up to date: {', '.join(map(str, stale))}; run python {script}", file=sys.stderr)
        return 1
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0
