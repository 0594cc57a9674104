"""Chaos: faults as data, each with its place and the batches of a run at which it fires.

``on`` makes a subclass of a trainer's class with the fault in it. No trainer knows this package, which in turn knows Ultralytics'
loop only by a few methods and attributes. It works on stock and guarded trainers, and on any class with ``preprocess_batch``,
``optimizer_step``, ``model`` and ``optimizer``. ``install`` puts the fault into a network or a data set alone, within a ``with``.

- :class:`Fault`: in the loop, and in the state between two steps;
- :class:`LayerFault`: a module that breaks in its forward or backward pass, or only in low precision;
- :class:`DeviceFault`: an operation with a wrong result, once or always;
- :class:`FileFault`: an image file, or a row of its labels, through all augmentations;
- :class:`LyingBackend`: a device whose reductions lose NaN, within a ``with``.

All are frozen; :class:`Armed` counts what happened, and ``truth`` is what an autopsy should find.
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
from .catalogue import OF_MAPS as OF_MAPS
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
