"""Counting: who and what is on the street, and when."""

from skyscraper_pipelines.counting.pipeline import CountingPipeline

__all__ = ["CountingPipeline"]
