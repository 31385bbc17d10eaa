"""What comes with a pipeline besides its code: a profile, and a page that tells all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from skyscraper.errors import ConfigError
from skyscraper.pipeline import configure, load_pipeline
from skyscraper.profile.codec import decode_fit
from skyscraper.profile.load import shipped_profile

PIPELINES = ("counting", "covid", "crops", "mosei", "mot")


@pytest.mark.parametrize("name", PIPELINES)
def test_the_shipped_profile_is_of_the_pipeline_and_small(name: str) -> None:
    profile, pipeline = shipped_profile(name), load_pipeline(name)
    assert profile is not None
    assert profile.ByteSize() < 300_000
    fit = decode_fit(profile.fit)
    for one in fit.configurations:
        assert dict(configure(pipeline.knobs, one)).keys() == one.keys()
    assert profile.row_schema == pipeline.row_schema.to_proto()


def test_no_profile_is_made_up_for_a_pipeline_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="is not installed"):
        shipped_profile("nothing")


@pytest.mark.parametrize("name", PIPELINES)
def test_the_reference_page_tells_every_knob_value_and_column(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "pipelines.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    (mine,) = [part for part in section if part.startswith(f"{name}\n")]
    pipeline = load_pipeline(name)
    for knob in pipeline.knobs:
        assert f"| `{knob.name}` | {', '.join(map(str, knob.domain))} |" in mine
    for column in pipeline.row_schema.columns:
        assert f"`{column.name}`" in mine
