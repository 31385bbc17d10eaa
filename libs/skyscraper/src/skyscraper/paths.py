"""Where downloaded and derived files live: never inside a repository, always safe to delete."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder of everything that can be fetched or computed again: Kafka's jars, models, rendered footage.

    `$SKYSCRAPER_HOME`, else `$XDG_CACHE_HOME/skyscraper`, else `~/.cache/skyscraper`. It is not created here.
    """
    home = os.environ.get("SKYSCRAPER_HOME")
    if home:
        return Path(home).expanduser().resolve()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "skyscraper"
