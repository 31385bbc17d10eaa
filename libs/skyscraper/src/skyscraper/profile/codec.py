"""A fit as a Protobuf message and back."""

from __future__ import annotations

import numpy as np

from skyscraper.profile.arrays import from_proto as array_of
from skyscraper.profile.arrays import to_proto as stored
from skyscraper.profile.categorise import Categories
from skyscraper.profile.errors import ProfileError
from skyscraper.profile.fit import Fit, History
from skyscraper.profile.forecast import Forecaster
from skyscraper.profile.place import Placement
from skyscraper.profile.predict import Predictor, ResidualModel
from skyscraper.profile.trees import Forest
from skyscraper.profile.work import WorkModel
from skyscraper.v1 import profile_pb2


def encode_fit(fit: Fit) -> profile_pb2.Fit:
    message = profile_pb2.Fit(
        version=fit.version,
        seed=fit.seed,
        segment_seconds=fit.segment_seconds,
        segments=fit.segments,
        feature_names=fit.feature_names,
        categories=profile_pb2.Categories(
            centres=stored(fit.categories.centres),
            share=stored(fit.categories.share),
            silhouette=fit.categories.silhouette,
            discriminating_configuration=fit.discriminating,
        ),
        predictor=_predictor(fit.predictor, fit.relative_error[0]),
        look_ahead_predictor=_predictor(fit.look_ahead_predictor, fit.relative_error[1]),
        residuals=profile_pb2.Residuals(
            persistence=fit.residuals.persistence,
            covariance=stored(fit.residuals.covariance),
            noise=stored(fit.residuals.noise),
        ),
        history=profile_pb2.History(
            predicted=stored(fit.history.predicted, "<f4"),
            truth=stored(fit.history.truth, "<f4"),
            seconds=stored(fit.history.seconds),
        ),
    )
    for k, knobs in enumerate(fit.configurations):
        message.configurations.append(
            profile_pb2.Configuration(
                knobs=knobs,
                mean_quality=fit.mean_quality[k],
                core_seconds_per_second=fit.work.rate[k],
                work_uncertainty=fit.work.uncertainty[k],
                operators=[
                    profile_pb2.OperatorWork(operator=name, core_seconds=seconds)
                    for name, seconds in zip(fit.operators, fit.operator_work[k], strict=True)
                ],
                placements=[
                    profile_pb2.Placement(
                        burst_operators=one.burst_operators,
                        pool_core_seconds=one.pool_core_seconds,
                        usd=one.usd,
                        bytes_up=one.bytes_up,
                        bytes_down=one.bytes_down,
                        latency_seconds=one.latency_seconds,
                    )
                    for one in fit.placements[k]
                ],
            )
        )
    if fit.forecaster is not None:
        message.forecaster.CopyFrom(
            profile_pb2.Forecaster(
                weights=[stored(one) for one in fit.forecaster.weights],
                biases=[stored(one) for one in fit.forecaster.biases],
                mae=fit.forecaster.mae,
                window_seconds=fit.window_seconds,
            )
        )
    return message


def decode_fit(message: profile_pb2.Fit) -> Fit:
    """Raises ProfileError where parts do not fit together."""
    count = len(message.configurations)
    if count < 2:
        raise ProfileError(f"the profile has {count} configurations; a fit has 2 or more")
    operators = tuple(one.operator for one in message.configurations[0].operators)
    if any(tuple(one.operator for one in each.operators) != operators for each in message.configurations):
        raise ProfileError("the profile's configurations have different operators")
    centres = array_of(message.categories.centres, None, count)
    if message.categories.discriminating_configuration >= count:
        raise ProfileError(f"the profile's discriminating configuration is not one of its {count}")
    has_forecaster = message.HasField("forecaster")
    return Fit(
        version=message.version,
        seed=message.seed,
        segment_seconds=message.segment_seconds,
        segments=message.segments,
        feature_names=tuple(message.feature_names),
        configurations=tuple(dict(sorted(one.knobs.items())) for one in message.configurations),
        mean_quality=np.array([one.mean_quality for one in message.configurations]),
        work=WorkModel(
            np.array([one.core_seconds_per_second for one in message.configurations]),
            np.array([one.work_uncertainty for one in message.configurations]),
        ),
        operators=operators,
        operator_work=np.array([[one.core_seconds for one in each.operators] for each in message.configurations]),
        placements=tuple(
            tuple(
                Placement(
                    tuple(one.burst_operators),
                    one.pool_core_seconds,
                    one.usd,
                    one.bytes_up,
                    one.bytes_down,
                    one.latency_seconds,
                )
                for one in each.placements
            )
            for each in message.configurations
        ),
        categories=Categories(centres, array_of(message.categories.share, len(centres)), message.categories.silhouette),
        discriminating=message.categories.discriminating_configuration,
        forecaster=Forecaster(
            tuple(array_of(one, None, None) for one in message.forecaster.weights),
            tuple(array_of(one, None) for one in message.forecaster.biases),
            message.forecaster.mae,
        )
        if has_forecaster
        else None,
        window_seconds=message.forecaster.window_seconds,
        predictor=_from_predictor(message.predictor, count),
        look_ahead_predictor=_from_predictor(message.look_ahead_predictor, count),
        relative_error=(message.predictor.relative_error, message.look_ahead_predictor.relative_error),
        residuals=ResidualModel(
            message.residuals.persistence,
            array_of(message.residuals.covariance, count, count),
            array_of(message.residuals.noise, count),
        ),
        history=History(
            array_of(message.history.predicted, None, count),
            array_of(message.history.truth, None, count),
            array_of(message.history.seconds, None),
        ),
    )


def _predictor(predictor: Predictor, relative_error: float) -> profile_pb2.Predictor:
    return profile_pb2.Predictor(
        mean=stored(predictor.mean),
        components=stored(predictor.components),
        relative_error=relative_error,
        forests=[
            profile_pb2.Forest(
                feature=stored(one.feature, "<i2"),
                threshold=stored(one.threshold),
                left=stored(one.left, "<i4"),
                right=stored(one.right, "<i4"),
                roots=stored(one.roots, "<i4"),
                baseline=one.baseline,
            )
            for one in predictor.models
        ],
    )


def _from_predictor(message: profile_pb2.Predictor, count: int) -> Predictor:
    forests = []
    for one in message.forests:
        feature = array_of(one.feature, None, dtype=np.int64)
        nodes = len(feature)
        forest = Forest(
            feature,
            array_of(one.threshold, nodes),
            array_of(one.left, nodes, dtype=np.int64),
            array_of(one.right, nodes, dtype=np.int64),
            array_of(one.roots, None, dtype=np.int64),
            one.baseline,
        )
        inner = forest.feature >= 0
        # Children lie behind their parent, so that every walk ends.
        ahead = np.arange(nodes)[inner]
        if (
            not all(((child[inner] > ahead) & (child[inner] < nodes)).all() for child in (forest.left, forest.right))
            or not ((forest.roots >= 0) & (forest.roots < nodes)).all()
        ):
            raise ProfileError("a tree of the profile's predictor is damaged")
        forests.append(forest)
    return Predictor(array_of(message.mean, count), array_of(message.components, len(forests), count), tuple(forests))
