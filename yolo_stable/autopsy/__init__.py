"""Autopsy: what broke a training step, and why. Pure PyTorch, without Ultralytics."""

from __future__ import annotations

from ..guard.untouched import untouched as untouched
from .batch_case import BatchCase as BatchCase
from .bundle import Bundle as Bundle
from .bundle import BundleError as BundleError
from .bundle import read_bundle as read_bundle
from .bundle import write_bundle as write_bundle
from .case import TensorCase as TensorCase
from .examine import examine as examine
from .finding import Break as Break
from .finding import Location as Location
from .frames import Frame as Frame
from .frames import frames_table as frames_table
from .locate import locate as locate
from .locate import locate_call as locate_call
from .ranges import Range as Range
from .report import AutopsyReport as AutopsyReport
from .report import Sample as Sample
from .symptom import Symptom as Symptom

Report = AutopsyReport
