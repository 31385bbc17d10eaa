"""The crop classifier run by the offline phase, with the knobs' values as request parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dynamoe.classifier import ImageClassifier
from skyscraper.errors import SkyscraperError
from skyscraper.record.models import MeteredModels
from skyscraper_pipelines.crops.cutting import CLASSES, CROP_PIXELS
from skyscraper_pipelines.crops.pipeline import MODEL
from skyscraper_pipelines.crops.train import SHAPE


@pytest.fixture
def models(tmp_path: Path) -> MeteredModels:
    torch.manual_seed(0)
    ImageClassifier(SHAPE).save(tmp_path / MODEL / "1")
    return MeteredModels(tmp_path)


def test_a_crop_is_computed_once_for_each_value_of_the_knobs(models: MeteredModels) -> None:
    images = np.random.default_rng(1).integers(0, 255, (11, CROP_PIXELS, CROP_PIXELS, 3), dtype=np.uint8)
    one, two = {"top_k": 1, "active_experts": 2}, {"top_k": 2, "active_experts": 4}
    first = models.infer(MODEL, {"images": images}, one)["probabilities"]
    other = models.infer(MODEL, {"images": images}, two)["probabilities"]
    assert first.shape == other.shape == (11, len(CLASSES))
    assert not np.allclose(first, other)
    _, charged = models.take()
    assert np.array_equal(models.infer(MODEL, {"images": images[::-1]}, one)["probabilities"], first[::-1])
    # Seen before: it costs what it cost the first time.
    _, again = models.take()
    assert 0 < again < charged


def test_a_model_that_was_not_trained_is_named_with_the_command_that_trains_it(tmp_path: Path) -> None:
    with pytest.raises(SkyscraperError, match=r"skyscraper_pipelines\.crops\.train"):
        MeteredModels(tmp_path).infer(MODEL, {"images": np.zeros((1, 4, 4, 3), np.uint8)}, {})
