"""Report: the page of one or several runs, one file that opens anywhere.

``read_run`` reads a run's folder, guarded or stock, in bounded memory; ``write_report`` writes the page.
"""

from .page import write_report
from .run import Run, read_run
from .verdict import RunVerdict, verdict

__all__ = ["Run", "RunVerdict", "read_run", "verdict", "write_report"]
