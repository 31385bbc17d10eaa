"""What every service shares: typed configuration, logs, health page, metrics, and how it starts and stops."""

from skyscraper.service.config import KafkaConfig, MetricsConfig, ServiceConfig, load_config
from skyscraper.service.health import Health
from skyscraper.service.logs import configure_logs
from skyscraper.service.main import run_service

__all__ = [
    "Health",
    "KafkaConfig",
    "MetricsConfig",
    "ServiceConfig",
    "configure_logs",
    "load_config",
    "run_service",
]
