"""Device validation: does a device compute YOLO training rightly? A battery of checks against float64 on the CPU.

The ways in are :func:`validate` and :func:`run_one`; neither needs torch in the calling process.

A check is data: an operation, shapes, layouts, types, and a gate with its reason and source. Inputs come from an integer hash, so
that every machine has the same. The reference is float64 on the CPU. Two metrics judge, the norm of the error (``rms``) and its
largest element in units of rounding (``q``), and tell the precision that was really used. One worker process touches the device,
is restarted when it dies or hangs, and can be given environment variables before torch reads them, which is also how the search
for a healing setting works. CUDA and ROCm are told apart by ``torch.version.hip`` alone.

Faults are data as well: ``benchmarks/device_faults.py`` has each of them caught by the check that should, and
``benchmarks/device_outside.py`` has faults from outside. Checks are added by kind, not for one fault: types, layouts (a chunk
of channels, mixed orders), sizes of which the ends are compared, special numbers, long lists, broadcast forms. Covering arrays
(``covering.py``, ``operations/cover_*.py``) run each operation of a training in all pairs of types, layouts, broadcasts, forms,
sizes and values; their many small outputs are packed and judged together (``packing.py``), each element against itself. Sums
are of whole numbers that float32 adds up exactly in any order, and of which no 16-bit type holds the partial sums. What no
check was written for is seen by a shadowed step (``shadow.py``): small networks of Ultralytics' modules are trained and
validated under a dispatch mode, which takes the inputs of each operation to the host before it runs, computes the same call
there in float64 and holds the results together.
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
