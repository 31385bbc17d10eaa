from __future__ import annotations

import sys

from skyscraper.service import run_service

from skyscraper_publisher.config import PublisherConfig
from skyscraper_publisher.serve import serve

if __name__ == "__main__":
    sys.exit(run_service("publisher", PublisherConfig, serve))
