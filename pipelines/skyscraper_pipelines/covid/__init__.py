"""Covid: where people are on the ground, and how near to each other (paper section 5.2, COVID)."""

from skyscraper_pipelines.covid.pipeline import CovidPipeline

__all__ = ["CovidPipeline"]
