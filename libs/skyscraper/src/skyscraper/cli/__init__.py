"""The `skyscraper` command."""

from skyscraper.cli.app import main

__all__ = ["main"]
