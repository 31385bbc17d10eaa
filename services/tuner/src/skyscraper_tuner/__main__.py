"""`python -m skyscraper_tuner [--config FILE] [--check-config]`"""

import sys

from skyscraper.service import run_service

from skyscraper_tuner.config import TunerConfig
from skyscraper_tuner.service import serve

if __name__ == "__main__":
    sys.exit(run_service("tuner", TunerConfig, serve))
