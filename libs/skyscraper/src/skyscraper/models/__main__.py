"""`python -m skyscraper.models [NAME ...] [--repository DIR]`: fetch, convert and lay out the detection models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skyscraper.models.errors import ModelError
from skyscraper.models.fetch import to_stderr
from skyscraper.models.repository import SOURCES, default_repository, install_models


def main() -> int:
    parser = argparse.ArgumentParser(prog="skyscraper.models", description="Fetch and convert the detection models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which models; default all: {', '.join(SOURCES)}")
    parser.add_argument("--repository", type=Path, default=default_repository(), help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        install_models(arguments.names or tuple(SOURCES), arguments.repository, to_stderr)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
