"""The driver's version as Linux tells it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from yolo_stable.validate.driver import driver_version


@pytest.mark.parametrize(
    ("backend", "module"), [("cuda", "nvidia"), ("rocm", "amdgpu"), ("xpu", "xe"), ("xpu", "i915")]
)
def test_a_driver_with_a_version_of_its_own_is_named(tmp_path: Path, backend: str, module: str) -> None:
    (tmp_path / module).mkdir()
    (tmp_path / module / "version").write_text("6.12.5\n")
    assert driver_version(backend, tmp_path) == f"{module} 6.12.5"


@pytest.mark.parametrize("backend", ["cuda", "rocm", "xpu", "mps"])
def test_a_driver_that_comes_with_the_system_has_its_version(tmp_path: Path, backend: str) -> None:
    expected = platform.mac_ver()[0] or platform.release()
    assert driver_version(backend, tmp_path) == f"{platform.system()} {expected}"
