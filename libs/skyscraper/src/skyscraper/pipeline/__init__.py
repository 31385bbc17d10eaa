"""What a user writes: a pipeline with its knobs, its operators, the shape of its rows and its quality measure."""

from skyscraper.pipeline.knobs import Configuration, Knob, KnobValue, configure
from skyscraper.pipeline.pipeline import (
    Detections,
    Frames,
    ModelClient,
    Pipeline,
    Sampling,
    SegmentContext,
    SegmentResult,
    load_pipeline,
)
from skyscraper.pipeline.rows import Column, ColumnType, Row, RowSchema

__all__ = [
    "Column",
    "ColumnType",
    "Configuration",
    "Detections",
    "Frames",
    "Knob",
    "KnobValue",
    "ModelClient",
    "Pipeline",
    "Row",
    "RowSchema",
    "Sampling",
    "SegmentContext",
    "SegmentResult",
    "configure",
    "load_pipeline",
]
