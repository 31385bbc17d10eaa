"""The mosei pipeline: a stand-in for multimodal opinion sentiment (paper section 5.2, supplement J).

**No sentiment is computed, and nobody speaks.** The paper's models and footage are not to be had. What is kept is the
shape of the workload: speakers are found in the picture, each speaker's sentences are classified by a second network,
and the work follows how many speakers there are. Here a speaker is a person on the (simulated) street, a sentence is
one second of one speaker, and the second network is a detector, on the cut-out speaker: real arithmetic, metered by
the same servers, and a certainty that is real - of there being a person, not of an opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import cv2
import numpy as np
from numpy.typing import NDArray
from skyscraper.models.detect import Detector
from skyscraper.models.detections import COCO_LABELS
from skyscraper.models.tiles import Tiling
from skyscraper.pipeline import (
    Column,
    ColumnType,
    Configuration,
    Detections,
    Frames,
    Knob,
    ModelClient,
    Row,
    RowSchema,
    Sampling,
    SegmentContext,
    SegmentResult,
)

_FINDER = Detector("nanodet-g", ("person",), Tiling(1, 320), score_threshold=0.4, iou_threshold=0.5)
# Frames are decoded at twice the finder's size: cut out at its own, a speaker is too small to be sure of.
_FRAME_PIXELS = 640
# As the second network because its certainty grows with the picture's size: 0.30, 0.69 and 0.75 on the street camera's
# people; that of nanodet-g hardly does.
_ANALYST = "yolov3-tiny"
_SENTENCE_SECONDS = 1.0
# Side of the picture of one speaker that the second network sees.
_CROP_PIXELS = {"small": 64, "medium": 128, "large": 224}
# Around the speaker's box, as a share of its sides: detectors want some street around a person.
_MARGIN = 0.25
_UNHEARD, _HEARD = 0, 1
_PERSON = COCO_LABELS.index("person")


class MoseiPipeline:
    """One row per analysed sentence. Quality: the sum of the sentences' certainties, as in the paper. No state."""

    name = "mosei"
    version = "1"
    knobs = (
        Knob("frame_rate", (1, 2, 5), 2, "Frames in which speakers are looked for, per second of video."),
        Knob("sentences", (7, 6, 5, 4, 3, 2, 1), 2, "Of so many sentences in the segment, one is analysed."),
        Knob("model_size", ("small", "medium", "large"), "medium", "A speaker's picture: 64, 128 or 224 pixels."),
    )
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "The frame in which the sentence was analysed."),
            Column("sentence", ColumnType.INT64, "Which of the segment's sentences, from 0."),
            Column("sentences", ColumnType.INT64, "How many sentences there were in the segment."),
            Column("certainty", ColumnType.FLOAT64, "Of there being a speaker, 0 to 1; it says nothing of opinions."),
            Column("x_min", ColumnType.FLOAT64, "The speaker's left edge, pixels of the source video."),
            Column("y_min", ColumnType.FLOAT64, "Upper edge."),
            Column("x_max", ColumnType.FLOAT64, "Right edge."),
            Column("y_max", ColumnType.FLOAT64, "Lower edge."),
        ),
    )

    def sampling(self, configuration: Configuration) -> Sampling:
        return Sampling(float(configuration["frame_rate"]), width=_FRAME_PIXELS, height=_FRAME_PIXELS)

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        """Each sentence in the frame that shows most speakers of its second, left to right; the score is its certainty,
        the label whether it was analysed."""
        found = _FINDER.run(_reduced(frames), models)
        clearest = _clearest(frames, found)
        shown = [_from_the_left(one) if index in clearest else _nothing() for index, one in enumerate(found)]
        every = int(configuration["sentences"])
        size = _CROP_PIXELS[str(configuration["model_size"])]
        first = 0
        heard: list[NDArray[np.bool_]] = []
        crops: list[NDArray[np.uint8]] = []
        for index, one in enumerate(shown):
            chosen = (first + np.arange(len(one.boxes))) % every == 0
            first += len(one.boxes)
            heard.append(chosen)
            crops += [_crop(frames, index, box, size) for box in one.boxes[chosen]]
        certainty = _certainties(crops, models)
        done: list[Detections] = []
        for one, chosen in zip(shown, heard, strict=True):
            scores = np.zeros(len(one.boxes), dtype=np.float32)
            scores[chosen], certainty = certainty[: chosen.sum()], certainty[chosen.sum() :]
            done.append(Detections(one.boxes, scores, np.where(chosen, _HEARD, _UNHEARD).astype(np.int64)))
        return done

    def track(
        self,
        state: bytes | None,
        context: SegmentContext,
        frames: Frames,
        detections: Sequence[Detections],
        configuration: Configuration,
    ) -> SegmentResult:
        sentences = sum(len(one.boxes) for one in detections)
        rows: list[Row] = []
        number = 0
        for time_seconds, one in zip(frames.times_seconds.tolist(), detections, strict=True):
            for box, score, label in zip(one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True):
                if label == _HEARD:
                    x_min, y_min, x_max, y_max = (round(edge, 1) for edge in box)
                    rows.append(
                        {
                            "event_time": context.time + timedelta(seconds=time_seconds),
                            "sentence": number,
                            "sentences": sentences,
                            "certainty": round(score, 3),
                            "x_min": x_min,
                            "y_min": y_min,
                            "x_max": x_max,
                            "y_max": y_max,
                        }
                    )
                number += 1
        return SegmentResult(rows, float(sum(one.scores.sum() for one in detections)), b"")


def _reduced(frames: Frames) -> Frames:
    """As the finder wants them."""
    side = _FINDER.tiling.image_size
    images = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in frames.images]
    return replace(frames, images=np.array(images, dtype=np.uint8).reshape(-1, side, side, 3))


def _clearest(frames: Frames, found: Sequence[Detections]) -> set[int]:
    """By second, the index of the frame that shows most speakers."""
    best: dict[int, int] = {}
    for index, time_seconds in enumerate(frames.times_seconds.tolist()):
        second = int(time_seconds / _SENTENCE_SECONDS)
        if second not in best or len(found[index].boxes) > len(found[best[second]].boxes):
            best[second] = index
    return set(best.values())


def _from_the_left(one: Detections) -> Detections:
    order = np.argsort(one.boxes[:, 0], kind="stable")
    return Detections(one.boxes[order], one.scores[order], one.labels[order])


def _nothing() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def _crop(frames: Frames, index: int, box: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """The speaker's picture: uint8 [size, size, 3]."""
    _, height, width, _ = frames.images.shape
    scale = np.array([width / frames.source_width, height / frames.source_height] * 2)
    x_min, y_min, x_max, y_max = box * scale
    margin_x, margin_y = (x_max - x_min) * _MARGIN, (y_max - y_min) * _MARGIN
    left, top = int(np.clip(x_min - margin_x, 0, width - 1)), int(np.clip(y_min - margin_y, 0, height - 1))
    right, bottom = int(np.clip(x_max + margin_x, left + 1, width)), int(np.clip(y_max + margin_y, top + 1, height))
    part = frames.images[index, top:bottom, left:right]
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _certainties(crops: Sequence[NDArray[np.uint8]], models: ModelClient) -> NDArray[np.float32]:
    """[n]: the best score of a person in each picture."""
    if not crops:
        return np.zeros(0, dtype=np.float32)
    outputs = models.infer(_ANALYST, {"images": np.stack(crops)})
    best: NDArray[np.float32] = np.where(outputs["labels"] == _PERSON, outputs["scores"], 0).max(axis=1)
    return best.astype(np.float32)
