"""`python -m skyscraper_inference [--config FILE] [--check-config]`"""

import sys

from skyscraper.service import run_service

from skyscraper_inference.config import InferenceServiceConfig
from skyscraper_inference.service import serve

if __name__ == "__main__":
    sys.exit(run_service("inference", InferenceServiceConfig, serve))
