"""Crops: a second look at every detection, by a mixture of experts."""

from skyscraper_pipelines.crops.pipeline import CropsPipeline

__all__ = ["CropsPipeline"]
