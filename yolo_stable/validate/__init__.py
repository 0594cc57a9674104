"""Device validation: a battery of checks compares what a device computes with float64 on the CPU.

The entry points are :func:`validate` and :func:`run_one`; neither needs torch in the calling process.

A check is data (``checks/``): an operation (``operations/``), shapes, layouts, types, and a gate with reason and source. Inputs
come from an integer hash, and are the same on every machine. Two metrics judge a result, the norm of the error (``rms``) and its
largest element in units of rounding (``q``), and tell the precision that was really used. One worker process touches the device;
it is started again when it dies or hangs, and can be given environment variables before torch reads them, which is how the search
for a healing setting works. ``torch.version.hip`` alone tells CUDA and ROCm apart.

Faults are data as well (``faults.py``): ``benchmarks/device_faults.py`` proves that the right check catches each of them, and
``benchmarks/device_outside.py`` has faults from outside. A check is added for a kind of fault, not for one fault. Covering arrays
(``operations/cover_*.py``) run each operation of a training in all pairs of types, layouts, broadcasts, forms, sizes and values;
their many small outputs are packed and judged together (``packing.py``), each element against itself. Their sums are of whole
numbers that float32 adds up exactly in any order, and whose partial sums no 16-bit type holds.

A shadowed step (``shadow/``) sees what no check was written for: it trains and validates small networks of Ultralytics' modules
under a dispatch mode, which takes the inputs of each operation to the host before it runs, computes the same call there in
float64 and compares the results.
"""

from __future__ import annotations

from .backend import BACKENDS as BACKENDS
from .backend import DeviceBackend as DeviceBackend
from .backend import HealSetting as HealSetting
from .check import FAMILIES as FAMILIES
from .check import TIERS as TIERS
from .check import Check as Check
from .check import CheckCase as CheckCase
from .deviation import Errors as Errors
from .faults import FAULTS as FAULTS
from .faults import KernelFault as KernelFault
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
