"""Device validation: does a device compute YOLO training rightly? A battery of checks against float64 on the CPU.

The ways in are :func:`validate` and :func:`run_one`; neither needs torch in the calling process.
"""

from __future__ import annotations

from .backend import BACKENDS as BACKENDS
from .backend import Backend as Backend
from .backend import Setting as Setting
from .check import FAMILIES as FAMILIES
from .check import TIERS as TIERS
from .check import Case as Case
from .check import Check as Check
from .deviation import Errors as Errors
from .faults import FAULTS as FAULTS
from .faults import Fault as Fault
from .faults import find_fault as find_fault
from .gate import SEVERITY as SEVERITY
from .gate import Gate as Gate
from .gate import Status as Status
from .result import SCHEMA as SCHEMA
from .result import SUITE as SUITE
from .result import CheckResult as CheckResult
from .result import Part as Part
from .result import ValidationResult as ValidationResult
from .result_file import IncomparableError as IncomparableError
from .result_file import from_json as from_json
from .result_file import to_json as to_json
from .run import Progress as Progress
from .run import run_one as run_one
from .run import validate as validate
