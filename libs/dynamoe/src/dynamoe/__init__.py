"""A mixture-of-experts layer whose running plan is rebuilt as the load of its experts moves."""

from dynamoe.errors import DynamoeError, SettingError, ShapeError
from dynamoe.experts import FfnExperts, ModuleExperts
from dynamoe.kernels import Activation
from dynamoe.moe import Loss, MoE
from dynamoe.plan import Overflow, Plan, Precision, Rows
from dynamoe.recompile import Change, Event, Observation, Recompile, Score
from dynamoe.routing import Mixing

__all__ = [
    "Activation",
    "Change",
    "DynamoeError",
    "Event",
    "FfnExperts",
    "Loss",
    "Mixing",
    "MoE",
    "ModuleExperts",
    "Observation",
    "Overflow",
    "Plan",
    "Precision",
    "Recompile",
    "Rows",
    "Score",
    "SettingError",
    "ShapeError",
]
