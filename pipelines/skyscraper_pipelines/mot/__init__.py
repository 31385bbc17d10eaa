"""Mot: the paths of people, box by box (paper section 5.2, MOT)."""

from skyscraper_pipelines.mot.pipeline import MotPipeline

__all__ = ["MotPipeline"]
