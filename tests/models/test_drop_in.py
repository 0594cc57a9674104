"""The drop-in classes are Ultralytics' own, and become each other as those do."""

from __future__ import annotations

import inspect

import pytest
import ultralytics

import yolo_stable


@pytest.mark.parametrize("name", ["RTDETR", "YOLO", "YOLOE", "YOLOWorld"])
def test_each_is_a_subclass_with_the_name_and_the_signature_of_stock(name: str) -> None:
    ours, stock = getattr(yolo_stable, name), getattr(ultralytics, name)
    assert issubclass(ours, stock)
    assert ours.__name__ == name
    assert inspect.signature(ours) == inspect.signature(stock)
    assert {key for key in vars(ours) if not key.startswith("__")} == set()
