"""The crop classifier in this process, for `skyscraper trace record`: torch is needed for it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skyscraper.errors import SkyscraperError
from skyscraper.record.models import Arrays, OfflineModel, Parameters

from skyscraper_pipelines.crops.pipeline import MODEL


def load(repository: Path) -> OfflineModel:
    """The newest version in a model repository. Raises SkyscraperError."""
    try:
        import torch
        from dynamoe.serve import ClassifierServer
    except ImportError as error:
        raise SkyscraperError(
            f"model {MODEL}: {error.name or error} is not installed here; install skyscraper-pipelines[train]"
        ) from error
    found = versions(repository)
    if not found:
        raise SkyscraperError(
            f"model {MODEL} is not in {repository}: `python -m skyscraper_pipelines.crops.train` makes it"
        )
    # What follows the load would let a crop's answer depend on what was asked before.
    server = ClassifierServer(repository / MODEL / str(max(found)), follow=())

    def run(inputs: Arrays, parameters: Parameters) -> Arrays:
        torch.set_num_threads(1)
        served = server.run(
            inputs["images"].astype(np.uint8, copy=False),
            k=int(parameters["top_k"]),
            active=int(parameters["active_experts"]),
            learn=False,
        )
        return {"probabilities": served.probabilities}

    return run


def versions(repository: Path) -> list[int]:
    """Of the classifier, as they are laid out in a model repository."""
    return [int(entry.name) for entry in (repository / MODEL).glob("*") if entry.name.isdigit()]
