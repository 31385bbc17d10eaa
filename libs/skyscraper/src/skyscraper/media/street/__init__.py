"""The street camera: an endless, seeded simulation out of real pixels, with exact ground truth.

People cut from a real clip walk their real paths over the clip's empty street, at a chosen density. The light (day,
dusk, night) is simulated: gamma, dimming and sensor noise; it has no headlights and no shadows.
In the vehicle scene the clip's one parked van drives away up the road; its path, speeds and paints are simulated too.
"""

from skyscraper.media.street.clip import Clip, cached_clip, load_truth
from skyscraper.media.street.day import DayCurve
from skyscraper.media.street.render import FrameTruth, Street, TruthObject
from skyscraper.media.street.spec import StreetSpec

__all__ = [
    "Clip",
    "DayCurve",
    "FrameTruth",
    "Street",
    "StreetSpec",
    "TruthObject",
    "cached_clip",
    "load_truth",
]
