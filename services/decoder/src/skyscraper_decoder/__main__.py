"""`python -m skyscraper_decoder [--config FILE] [--check-config]`"""

import sys

from skyscraper.service import run_service

from skyscraper_decoder.config import DecoderConfig
from skyscraper_decoder.service import serve

if __name__ == "__main__":
    sys.exit(run_service("decoder", DecoderConfig, serve))
