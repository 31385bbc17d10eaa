"""The offline phase on small made-up footage: what each part promises, and the whole as one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.pipeline.knobs import Configuration, Knob
from skyscraper.profile.categorise import categorise, choose_categories, classify, discriminating, nearest
from skyscraper.profile.codec import decode_fit, encode_fit
from skyscraper.profile.errors import ProfileError
from skyscraper.profile.fit import Fit, Footage, fit
from skyscraper.profile.forecast import examples, fine_tune, latest_input, train
from skyscraper.profile.load import load_profile
from skyscraper.profile.place import Burst, OperatorWork, placements
from skyscraper.profile.sample import diverse
from skyscraper.profile.search import Score, key_of, search, thin
from skyscraper.profile.trees import SIZES, fit_forest
from skyscraper.profile.work import fit_work
from skyscraper.v1 import profile_pb2

Floats = NDArray[np.float64]

BURST = Burst(1e-5, 0.5, 1e7, 1e7)
KNOBS = (
    Knob("rate", (1, 2, 5, 10), 1, "Frames."),
    Knob("size", (224, 320, 608), 224, "Pixels."),
    Knob("model", ("small", "large"), "small", "Detector."),
)


def score(hard: float, configuration: Configuration) -> Score:
    """Large models and images pay only where it is hard; the frame rate always does a little."""
    rate, size = float(configuration["rate"]), float(configuration["size"])
    large = configuration["model"] == "large"
    quality = 1 - 0.3 / rate - hard * (224 / size) * (0.6 if not large else 0.2)
    return Score(quality, rate * (size / 224) ** 2 * (3 if large else 1) * 0.01)


def footage(count: int = 600, seconds: float = 60.0, seed: int = 0) -> Footage:
    rng = np.random.default_rng(seed)
    hour = np.arange(count) * seconds / 3600 % 24
    load = 0.2 + np.exp(-(((hour - 12) / 4) ** 2)) + 0.05 * rng.normal(size=count)
    quality = load[:, None].clip(0.05) * (1 - np.array([0.6, 0.3, 0.0]) * load[:, None].clip(0, 1))
    work = np.array([0.1, 0.5, 2.0]) * seconds * rng.uniform(0.9, 1.1, (count, 1))
    return Footage(
        quality=quality,
        work=work,
        seconds=np.full(count, seconds),
        start_seconds=np.asarray(np.arange(count) * seconds, dtype=np.float64),
        segment_bytes=np.full(count, 1e6),
        features=np.stack([load + 0.1 * rng.normal(size=count), rng.normal(size=count)], axis=1),
        feature_names=("bytes", "noise"),
        configurations=tuple({"size": str(size)} for size in (224, 320, 608)),
        operators=("decode", "detect", "track"),
        operator_work=np.array([0.1, 0.5, 2.0])[:, None] * seconds * np.array([0.2, 0.7, 0.1]),
    )


def fitted(**settings: object) -> Fit:
    defaults: dict[str, object] = {"seed": 1, "burst": BURST, "stateless": ("decode", "detect")}
    return fit(footage(), **(defaults | settings))  # type: ignore[arg-type]


@given(seed=st.integers(0, 1000), count=st.integers(1, 12))
def test_sampled_segments_are_different_and_begin_with_the_smallest(seed: int, count: int) -> None:
    vectors = np.random.default_rng(seed).random((40, 2))
    chosen = diverse(vectors, count)
    assert len(set(chosen)) == count
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    norms = np.linalg.norm((vectors - low) / (high - low), axis=1)
    assert chosen[0] == int(np.argmin(norms))


def test_two_extremes_are_sampled_before_what_lies_between() -> None:
    assert set(diverse(np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [0.4, 0.6]]), 2)) == {0, 2}


def test_the_search_measures_a_part_of_the_grid_and_finds_its_frontier() -> None:
    hardness = [0.0, 0.5, 1.0]
    asked: list[tuple[int, object]] = []

    def measure(wanted: object) -> list[Score]:
        asked.extend((segment, key_of(one)) for segment, one in wanted)  # type: ignore[attr-defined]
        return [score(hardness[segment], one) for segment, one in wanted]  # type: ignore[attr-defined]

    found = search(KNOBS, 3, measure, most=8)
    assert len(asked) == len(set(asked)), "nothing is measured twice"
    works = [score(0.5, one).work for one in found.configurations]
    assert works == sorted(works)
    assert found.configurations[0] == {"rate": 1, "size": 224, "model": "small"}
    assert 3 <= len(found.configurations) <= 8
    grid = [
        {"rate": rate, "size": size, "model": model}
        for rate in KNOBS[0].domain
        for size in KNOBS[1].domain
        for model in KNOBS[2].domain
    ]
    for hard in hardness:
        for budget in (0.02, 0.1, 0.5, 3.0):
            best = max(score(hard, one).quality for one in grid if score(hard, one).work <= budget)
            ours = max(score(hard, one).quality for one in found.configurations if score(hard, one).work <= budget)
            assert ours >= best - 0.12


@given(seed=st.integers(0, 1000), most=st.integers(1, 10))
def test_thinning_keeps_the_cheapest_and_the_order_of_work(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    work = rng.permutation(np.geomspace(0.1, 10, 10))
    kept = thin(rng.random((4, 10)), work, most)
    assert 1 <= len(kept) <= most
    assert kept[0] == int(np.argmin(work))
    assert (np.diff(work[kept]) > 0).all()


def test_work_is_a_line_through_zero_with_its_95th_percentile() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1, 4, 4000)
    noise = rng.uniform(0.8, 1.2, (4000, 2))
    model = fit_work(np.array([0.5, 2.0]) * seconds[:, None] * noise, seconds)
    np.testing.assert_allclose(model.rate, [0.5, 2.0], rtol=0.02)
    np.testing.assert_allclose(model.uncertainty, 0.18, atol=0.02)
    np.testing.assert_allclose(model.estimate(3.0), model.rate * 3)


def test_categories_are_ordered_reproducible_and_told_apart_by_one_configuration() -> None:
    of = footage()
    one, two = categorise(of.quality, 4, seed=3), categorise(of.quality, 4, seed=3)
    np.testing.assert_array_equal(one.centres, two.centres)
    assert (np.diff(one.centres[:, -1]) > 0).all()
    assert one.share.sum() == pytest.approx(1)
    k = discriminating(one, of.quality)
    agreement = (classify(one.centres, of.quality[:, k], k) == nearest(one.centres, of.quality)).mean()
    assert agreement > 0.9


def test_content_that_never_changes_is_one_category() -> None:
    assert categorise(np.ones((100, 3)), 4, seed=0).count == 1


def test_the_number_of_categories_is_one_of_those_offered() -> None:
    of = footage()
    assert choose_categories(of.quality, of.work.mean(axis=0), seed=0).count in (3, 4, 5, 6, 8)


def labels_of(days: int) -> NDArray[np.int64]:
    """Category 1 on odd days, 0 on even ones: the last two days tell the next two."""
    return np.repeat(np.arange(days) % 2, 96).astype(np.int64)


def test_a_forecast_is_a_distribution_and_learns_what_repeats() -> None:
    points = examples(labels_of(20), 2, 900.0, 86_400.0)
    made = train(points, seed=0)
    told = made.forecast(points.inputs)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    usual = np.abs(points.targets.mean(axis=0) - points.targets).mean()
    assert made.mae < 0.5 * usual
    again = train(points, seed=0)
    np.testing.assert_array_equal(made.weights[0], again.weights[0])


def test_fine_tuning_is_never_worse_on_the_newest_examples() -> None:
    old = train(examples(labels_of(20), 2, 900.0, 86_400.0), seed=0)
    recent = examples(1 - labels_of(9), 2, 900.0, 86_400.0)
    tuned = fine_tune(old, recent, seed=0)
    split = round(len(recent.inputs) * 0.8)

    def error(which: object) -> float:
        told = which.forecast(recent.inputs[split:])  # type: ignore[attr-defined]
        return float(np.abs(told - recent.targets[split:]).mean())

    assert error(tuned) <= error(old) + 1e-12


def test_a_short_history_is_repeated_and_too_few_examples_are_refused() -> None:
    assert latest_input(labels_of(1), 2, 900.0).shape == (1, 16)
    assert len(examples(labels_of(1), 2, 900.0, 86_400.0).inputs) == 0
    with pytest.raises(ValueError, match="too few"):
        train(examples(labels_of(1), 2, 900.0, 86_400.0), seed=0)


def test_trees_as_arrays_predict_what_the_library_predicts() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2000, 4))
    target = np.sin(inputs[:, 0]) + (inputs[:, 1] > 0.3) * inputs[:, 2]
    model = HistGradientBoostingRegressor(
        max_iter=120, learning_rate=0.08, max_leaf_nodes=24, min_samples_leaf=40, random_state=5
    ).fit(inputs, target)
    fresh = rng.normal(size=(500, 4))
    forest = fit_forest(inputs, target, size=SIZES[1], seed=5)
    np.testing.assert_allclose(forest.predict(fresh), model.predict(fresh), atol=1e-9)


def test_a_constant_target_is_a_forest_without_trees_or_with_flat_ones() -> None:
    forest = fit_forest(np.random.default_rng(0).normal(size=(100, 2)), np.full(100, 7.0), size=SIZES[0], seed=0)
    np.testing.assert_allclose(forest.predict(np.zeros((3, 2))), 7.0)


def test_placements_offload_only_stateless_work_and_each_is_worth_something() -> None:
    chain = [
        OperatorWork("decode", 0.1, True, 5e6),
        OperatorWork("detect", 2.0, True, 1e4),
        OperatorWork("track", 0.05, False, 0.0),
    ]
    found = placements(chain, 5e5, BURST)
    assert found[0].burst_operators == ()
    assert found[0].usd == 0
    whole = found[-1]
    assert whole.burst_operators == ("decode", "detect")
    assert whole.pool_core_seconds == pytest.approx(0.05)
    assert whole.usd == pytest.approx(2.1e-5)
    assert whole.latency_seconds == pytest.approx(0.5 + 2.1 + 0.05 + 0.001)


def test_a_fit_survives_being_written_and_read(tmp_path: Path) -> None:
    made = fitted()
    message = profile_pb2.Profile(pipeline="counting", fit=encode_fit(made))
    path = tmp_path / "a.pb"
    path.write_bytes(message.SerializeToString(deterministic=True))
    read = decode_fit(load_profile(path).fit)
    assert read.version == made.version
    assert read.configurations == made.configurations
    assert read.placements == made.placements
    inputs = np.random.default_rng(0).normal(size=(20, made.predictor.models[0].feature.max() + 3))
    wide = np.zeros((20, 12))
    wide[:, : min(12, inputs.shape[1])] = inputs[:, :12]
    np.testing.assert_array_equal(read.predictor.predict(wide), made.predictor.predict(wide))
    np.testing.assert_array_equal(read.categories.centres, made.categories.centres)


def test_the_same_footage_and_seed_give_the_same_bytes_and_another_seed_another_version() -> None:
    one, two = (encode_fit(fitted()).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert fitted(seed=2).version != fitted().version


def test_short_footage_has_no_forecaster_and_long_footage_has_one() -> None:
    assert fitted().forecaster is None
    long = fit(footage(9 * 1440), seed=0, burst=BURST, stateless=("decode", "detect"))
    assert long.forecaster is not None
    assert long.forecaster.mae < 0.1
    assert decode_fit(encode_fit(long)).forecaster is not None


def test_too_little_footage_and_one_configuration_are_refused() -> None:
    few = footage(30)
    with pytest.raises(ProfileError, match="30 segments are too few"):
        fit(few, seed=0, burst=BURST, stateless=())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda fit: fit.ClearField("configurations"), "0 configurations"),
        (lambda fit: fit.categories.centres.shape.append(3), "shape"),
        (lambda fit: setattr(fit.predictor.mean, "data", b"nonsense"), "damaged"),
        (lambda fit: setattr(fit.predictor.mean, "dtype", "|O"), "type"),
        (lambda fit: fit.predictor.forests[0].left.CopyFrom(fit.predictor.forests[0].feature), "tree"),
    ],
)
def test_damage_is_told_and_never_loaded(damage: object, message: str) -> None:
    encoded = encode_fit(fitted())
    damage(encoded)  # type: ignore[operator]
    with pytest.raises(ProfileError, match=message):
        decode_fit(encoded)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_clear_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "a.pb"
    path.write_bytes(data)
    with pytest.raises(ProfileError):
        decode_fit(load_profile(path).fit)
