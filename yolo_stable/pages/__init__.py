"""Pages: the frame and the style of all verbs' pages; nothing from the network, all text escaped."""

from .frame import POLICY, render

__all__ = ["POLICY", "render"]
