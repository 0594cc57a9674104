"""The autopsy: what broke a training step, and why. Pure PyTorch; nothing here knows about Ultralytics."""

from __future__ import annotations

from .finding import Break as Break
from .finding import Location as Location
from .frames import Frame as Frame
from .frames import frames_table as frames_table
from .locate import locate as locate
from .locate import locate_call as locate_call
from .ranges import Range as Range
from .untouched import untouched as untouched
