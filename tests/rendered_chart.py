"""Rendering the chart, for its tests."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from skyscraper.paths import cache_dir

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "skyscraper"
TOOLS = cache_dir() / "kubernetes" / "bin"
# The release that the tests of rules and of the cluster speak of.
RELEASE, NAMESPACE = "video", "video"
EXAMPLES: dict[str, tuple[str, ...]] = {
    "laptop": ("laptop",),
    "on-prem": ("on-prem",),
    "on-prem+eks-spot": ("on-prem", "on-prem+eks-spot"),
    "gke": ("gke",),
    "aks": ("aks",),
}
# What `helm template` believes to speak to.
_KUBERNETES = "1.34.0"
# Far longer than any of it takes, for a machine that does other things beside.
_SECONDS = 240.0


def tool(name: str) -> str:
    """The program as tools/kubernetes/install.sh left it, else the PATH's."""
    own = TOOLS / name
    found = str(own) if os.access(own, os.X_OK) else shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is not here: run tools/kubernetes/install.sh chart")
    return found


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done


def example_options(name: str) -> list[str]:
    return [word for part in EXAMPLES[name] for word in ("-f", str(CHART / "examples" / f"{part}.yaml"))]


@functools.cache
def render(*options: str) -> tuple[dict[str, Any], ...]:
    """Every object of the release."""
    command = (tool("helm"), "template", RELEASE, str(CHART), "-n", NAMESPACE, "--kube-version", _KUBERNETES, *options)
    return tuple(one for one in yaml.safe_load_all(run(*command).stdout) if one)


def refused(*options: str) -> str:
    """What helm says to values that it must not take."""
    command = (tool("helm"), "template", RELEASE, str(CHART), "--kube-version", _KUBERNETES, *options)
    done = run(*command, check=False)
    assert done.returncode != 0, f"taken: {options}"
    return done.stderr


def of_kind(objects: tuple[dict[str, Any], ...], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def pod_of(one: dict[str, Any]) -> dict[str, Any] | None:
    """The pod's spec inside an object, or None."""
    spec = one.get("spec", {})
    if one["kind"] == "Pod":
        return dict(spec)
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template")
    return dict(template["spec"]) if isinstance(template, dict) and "spec" in template else None
