"""`python -m skyscraper_loader [--config FILE] [--check-config]`"""

import sys

from skyscraper.service import run_service

from skyscraper_loader.config import LoaderConfig
from skyscraper_loader.service import serve

if __name__ == "__main__":
    sys.exit(run_service("loader", LoaderConfig, serve))
