"""What a user writes: a pipeline with its knobs, its operators, the shape of its rows and its quality measure."""

from skyscraper.pipeline.knobs import Configuration, Knob, KnobValue, configure
from skyscraper.pipeline.pipeline import (
    Detections,
    Frames,
    ModelClient,
    Pipeline,
    PipelineMissing,
    Sampling,
    SegmentContext,
    SegmentResult,
    load_pipeline,
    reads_state,
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
    "PipelineMissing",
    "Row",
    "RowSchema",
    "Sampling",
    "SegmentContext",
    "SegmentResult",
    "configure",
    "load_pipeline",
    "reads_state",
]
