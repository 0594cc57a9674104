"""The verbs of the command, one function in each file; none imports anything heavy before it runs."""

from .autopsy import autopsy
from .check import check
from .compare import compare
from .preflight import preflight
from .presets import app as presets
from .report import report
from .train import train
from .validate import validate

__all__ = ["autopsy", "check", "compare", "preflight", "presets", "report", "train", "validate"]
