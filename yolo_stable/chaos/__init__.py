"""Faults as data: what is put where, and at which batches of a training run.

A fault is put into a trainer from outside, with a subclass that ``on`` makes of the trainer's class; no trainer knows of this
package, and it knows Ultralytics' loop by the names of a few methods and attributes only. It works on stock trainers, on
guarded ones, and on any class with ``preprocess_batch``, ``optimizer_step``, ``model`` and ``optimizer``. What happens in
a network or a data set can also be put into one of those alone, for the time of a ``with``: ``install``.

- :class:`Fault`: in the loop, and in the state between two steps;
- :class:`LayerFault`: a module that breaks in its forward or backward pass, or in low precision only;
- :class:`DeviceFault`: an operation whose result comes out wrong, once or always;
- :class:`FileFault`: an image file, or a row of its labels, through all augmentations;
- :class:`LyingBackend`: a device whose reductions lose NaN, for the time of a ``with``.

All are frozen; what happened is counted by :class:`Armed`, and ``truth`` is what an autopsy should find.
"""

from .armed import INF as INF
from .armed import NAN as NAN
from .armed import Armed as Armed
from .armed import Truth as Truth
from .backend import LyingBackend as LyingBackend
from .breaking import BACKWARD as BACKWARD
from .breaking import FORWARD as FORWARD
from .breaking import LOW_PRECISION_ONLY as LOW_PRECISION_ONLY
from .breaking import WHOLE as WHOLE
from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import PASSING as PASSING
from .catalogue import Schedule as Schedule
from .device import DeviceFault as DeviceFault
from .fault import PLACES as PLACES
from .fault import STATE_PLACES as STATE_PLACES
from .fault import Fault as Fault
from .files import FileFault as FileFault
from .layers import MARK as MARK
from .layers import LayerFault as LayerFault
from .layers import mark as mark
from .layers import marked as marked
from .modules import find as find
from .modules import leaves as leaves
