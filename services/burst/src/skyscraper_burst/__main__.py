"""`python -m skyscraper_burst [--config FILE] [--check-config]`"""

import sys

from skyscraper.service import run_service

from skyscraper_burst.config import BurstConfig
from skyscraper_burst.service import serve

if __name__ == "__main__":
    sys.exit(run_service("burst", BurstConfig, serve))
