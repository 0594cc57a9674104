"""Everything about a data set that can be known before training: files, labels, duplicates, balance.

``tests/check/test_corpus.py`` holds it against what Ultralytics' trainers make of some 830 odd files, descriptions and class
folders.
"""

from __future__ import annotations

from .check import check as check
from .command import run_check as run_check
from .finding import DataFinding as DataFinding
from .finding import Rule as Rule
from .finding import Severity as Severity
from .report import DataReport as DataReport
from .rules import RULES as RULES
