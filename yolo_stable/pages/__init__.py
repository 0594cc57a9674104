"""The pages of all verbs: one frame, one style, nothing from the network, all text escaped."""

from .frame import POLICY, render

__all__ = ["POLICY", "render"]
