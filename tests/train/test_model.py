"""What the commands say of models that cannot be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.train.model import open_model


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("sam_b.pt", "SAM"),
        ("models/sam2.1_t.pt", "SAM"),
        ("mobile_sam.pt", "SAM"),
        ("sam3.pt", "SAM"),
        ("FastSAM-s.pt", "FastSAM"),
        ("yolo_nas_l.pt", "NAS"),
    ],
)
def test_a_model_without_a_trainer_is_refused_in_one_line_before_it_is_downloaded(name: str, family: str) -> None:
    with pytest.raises(InvalidCallError) as refused:
        open_model(name)
    assert str(refused.value) == f"train: model={name} cannot be trained: Ultralytics has no trainer for {family}."


def test_a_name_that_only_begins_like_one_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "sam_the_detector.pt"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(InvalidCallError, match="cannot be used"):
        open_model(str(file))
