"""Mosei: a stand-in for the paper's opinion analysis, whose work follows simulated content (section 5.2, MOSEI)."""

from skyscraper_pipelines.mosei.pipeline import MoseiPipeline

__all__ = ["MoseiPipeline"]
