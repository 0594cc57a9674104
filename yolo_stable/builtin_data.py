"""The built-in data sets under the name that the documentation gives: ``from yolo_stable.builtin_data import make``."""

from .data.builtin import make

__all__ = ["make"]
