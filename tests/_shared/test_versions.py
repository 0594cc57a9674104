from __future__ import annotations

import torch

from yolo_stable._shared.versions import versions_of


def test_packages_that_are_not_installed_are_left_out() -> None:
    found = versions_of(("no-such-package-anywhere", "torch"))
    assert list(found) == ["torch"]
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
