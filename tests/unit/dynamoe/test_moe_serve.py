"""Serving: one model, many threads, plans that move under them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamoe import Observation, Plan, Precision, SettingError, ShapeError
from dynamoe.classifier import SHAPE_FILE, WEIGHTS_FILE, ClassifierShape, ImageClassifier
from dynamoe.dispatch import capacities, shared_out
from dynamoe.recompile import next_score
from dynamoe.serve import Cause, ClassifierServer, Follow, cause, first_plan, serving_policy
from hypothesis import given
from hypothesis import strategies as st

SHAPE = ClassifierShape(
    height=8, width=12, channels=(4, 6), d_model=16, d_ff=32, layers=2, experts=4, k=2, labels=("a", "b", "c")
)
IMAGES = np.random.default_rng(5).integers(0, 256, (24, 8, 12, 3), dtype=np.uint8)


def model() -> ImageClassifier:
    torch.manual_seed(3)
    return ImageClassifier(SHAPE).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model().save(tmp_path)
    return tmp_path


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.01, 100), st.integers(1, 12), st.integers(1, 64)
)
def test_a_capacity_is_shared_out_in_the_plans_proportions(
    alphas: list[float], capacity: float, active: int, rows: int
) -> None:
    active = min(active, len(alphas))
    factors = shared_out(alphas, capacity, active=active)
    assert len(factors) == len(alphas)
    assert sum(factors) == pytest.approx(capacity * len(alphas))
    assert factors[active:] == (0.0,) * (len(alphas) - active)
    limits = capacities(factors, n=len(alphas), k=1, batch=rows)
    assert limits is not None
    # Each is rounded up to whole rows.
    assert capacity * rows - 1 <= sum(limits) <= capacity * rows + active


def test_evaluation_gives_what_the_forward_pass_gives_and_leaves_nothing() -> None:
    mine, images = model(), torch.from_numpy(IMAGES)
    for k, active in ((None, None), (1, None), (1, 2), (2, 3)):
        with torch.no_grad():
            wanted = mine(images, k=k, active=active)
        before = [layer.observed for layer in mine.moe_layers]
        found, seen = mine.evaluate(images, k=k, active=active)
        assert torch.allclose(found, wanted, atol=1e-5)
        assert [layer.observed for layer in mine.moe_layers] == before
        assert [one.rows for one in seen] == [len(images)] * SHAPE.layers
        assert all(sum(one.counts[active or 4 :]) == 0 for one in seen)


def test_a_capacity_drops_and_no_capacity_drops_nothing_whatever_the_plan() -> None:
    mine, images = model(), torch.from_numpy(IMAGES)
    wanted, _ = mine.evaluate(images)
    for layer in mine.moe_layers:
        layer.set_plan(Plan(alpha=(0.1,) * 4))
    found, seen = mine.evaluate(images)
    assert torch.equal(found, wanted)
    assert not any(one.dropped for one in seen)
    _, tight = mine.evaluate(images, capacity=0.25)
    assert all(one.dropped >= len(images) for one in tight)


def test_what_was_saved_comes_back_and_is_no_code(folder: Path) -> None:
    images = torch.from_numpy(IMAGES)
    assert torch.equal(ImageClassifier.load(folder).eval().evaluate(images)[0], model().evaluate(images)[0])
    assert json.loads((folder / SHAPE_FILE).read_text())["labels"] == ["a", "b", "c"]


def test_files_that_do_not_fit_each_other_are_told_apart(folder: Path) -> None:
    (folder / SHAPE_FILE).write_text(replace(SHAPE, d_ff=64).to_json())
    with pytest.raises(SettingError, match=r"does not fit model.json: moes\.0\.experts"):
        ImageClassifier.load(folder)
    (folder / WEIGHTS_FILE).write_bytes(b"nothing")
    with pytest.raises(SettingError, match="model.safetensors cannot be read"):
        ImageClassifier.load(folder)
    (folder / SHAPE_FILE).write_text('{"format": 1, "kind": "image_classifier", "height": 8}')
    with pytest.raises(SettingError, match=r"has the fields \['height'\], wanted are"):
        ClassifierServer(folder)


@pytest.mark.parametrize("wrong", [{"height": 9}, {"k": 5}, {"labels": ("a", "a")}, {"experts": 0}])
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="classifier"):
        replace(SHAPE, **wrong)  # type: ignore[arg-type]


def test_more_experts_than_there_are_is_refused(folder: Path) -> None:
    with pytest.raises(ShapeError, match="k=3 of active=2"):
        ClassifierServer(folder).run(IMAGES, k=3, active=2)


def after(batches: int, rows: int, counts: Sequence[int]) -> list[str]:
    """What the serving policy did over so many equal batches."""
    policy = serving_policy(4, list(Follow), int8_rows=8)
    assert policy is not None
    plan, score, said = first_plan(4), None, []
    for _ in range(batches):
        score = next_score(score, Observation(rows, 2, counts))
        change = policy(plan, score)
        if change is not None:
            plan, score = change.plan, replace(score, steps_since_change=0)
            said.append(change.reason.split()[0])
    return said


def test_small_batches_choose_int8_and_an_uneven_load_moves_the_shares() -> None:
    assert after(200, 4, (2, 2, 2, 2)) == ["precision"]
    assert after(200, 4, (4, 2, 2, 0)) == ["precision", "local"]


def test_a_load_on_one_expert_moves_no_share() -> None:
    assert after(200, 4, (4, 4, 0, 0)) == ["precision", "local"]
    assert after(200, 4, (5, 1, 1, 1)) == ["precision"]


def test_nothing_followed_is_no_policy() -> None:
    assert serving_policy(4, (), int8_rows=8) is None


def test_threads_go_on_while_plans_are_swapped_under_them(folder: Path) -> None:
    """Each answer is one plan's own: as in single precision, as in bfloat16 or as in int8, within their errors."""
    server = ClassifierServer(folder, follow=list(Follow), int8_rows=8)
    wanted = model().evaluate(torch.from_numpy(IMAGES))[0].softmax(dim=1).numpy()
    causes: list[Cause] = []
    errors: list[float] = []

    def ask(rows: int) -> None:
        torch.set_num_threads(1)
        for _ in range(100):
            served = server.run(IMAGES[:rows])
            causes.extend(cause(layer.event) for layer in served.layers if layer.event is not None)
            errors.append(float(np.abs(served.probabilities - wanted[:rows]).max()))

    for rows in (2, 24, 2):
        threads = [threading.Thread(target=ask, args=(rows,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(errors) == 3 * 3 * 100
    assert max(errors) < 0.02
    assert causes.count(Cause.PRECISION) >= 3 * SHAPE.layers
    assert Cause.FAILED not in causes
    assert {plan.precision for plan in server.plans} == {Precision.INT8}
