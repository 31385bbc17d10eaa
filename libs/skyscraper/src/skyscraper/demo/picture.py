"""One frame as the table sees it: the last frame of a busy segment with the boxes that its rows hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition

from skyscraper.bus import topics
from skyscraper.bus.reports import Seen, seconds
from skyscraper.media.decode import decode_segment
from skyscraper.pipeline import Sampling

_GREEN = (96, 220, 60)
_WHITE = (255, 255, 255)
_READ_SECONDS = 10.0


def draw_picture(client: Mapping[str, Any], seen: Sequence[Seen], rows: Sequence[Message], path: Path) -> Path:
    """Draw the segment with the most rows in bright light, from Kafka's own copy of it. Returns `path`."""
    busiest = max(seen, key=lambda one: one.report.quality).report
    objects = [json.loads(row.value() or b"") for row in rows]
    objects = [row for row in objects if row["_segment"] == busiest.segment_id]
    last = max((datetime.fromisoformat(row["last_seen"]).timestamp() for row in objects), default=0.0)
    frames = decode_segment(_segment(client, busiest.partition, busiest.offset), Sampling(30, 768, 576))
    index = int(np.abs(frames.times_seconds - (last - seconds(busiest.event_time))).argmin())
    image = np.ascontiguousarray(frames.images[index][..., ::-1])
    for row in objects:
        if abs(datetime.fromisoformat(row["last_seen"]).timestamp() - last) < 1e-3:
            _draw(image, row)
    text = f"{busiest.stream_id}  {busiest.event_time.ToJsonString()}  {len(objects)} rows in this segment"
    cv2.rectangle(image, (0, 0), (image.shape[1], 26), (0, 0, 0), -1)
    cv2.putText(image, text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _WHITE, 1, cv2.LINE_AA)
    cv2.imwrite(str(path), image)
    return path


def _draw(image: np.ndarray[Any, Any], row: Mapping[str, Any]) -> None:
    corner, opposite = ((int(row[f"x_{end}"]), int(row[f"y_{end}"])) for end in ("min", "max"))
    cv2.rectangle(image, corner, opposite, _GREEN, 2)
    label = f"{row['label']} {row['track_id']}  {row['confidence']:.2f}"
    above = (corner[0], max(38, corner[1] - 5))
    cv2.putText(image, label, above, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, label, above, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _GREEN, 1, cv2.LINE_AA)


def _segment(client: Mapping[str, Any], partition: int, offset: int) -> bytes:
    consumer = Consumer({**client, "group.id": "skyscraper-demo-picture", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topics.SEGMENTS, partition, offset)])
        message = consumer.poll(_READ_SECONDS)
        return (None if message is None else message.value()) or b""
    finally:
        consumer.close()
