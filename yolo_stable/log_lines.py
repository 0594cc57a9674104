"""The lines that the terminal shows of what the guard did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .guard import Climb, Rung

FILES_SHOWN = 3
"""Image files named in a line on the terminal; the event has all of them."""


def name_files(files: list[str]) -> str:
    """Return a sentence with the first image files of a batch."""
    if not files:
        return "Its images have no file names"
    shown = ", ".join(Path(file).name for file in files[:FILES_SHOWN])
    more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    return f"Images: {shown}{more}"


def what_was_done(climb: Climb) -> str:
    """Return what a climb has put back."""
    if climb.rung is Rung.REPAIR:
        return f"the EMA was put back to step {climb.to_step}, training goes on"
    if climb.rung is Rung.HALT:
        kept = "" if climb.to_step is None else f", the state was put back to step {climb.to_step}"
        return f"training is halted{kept}"
    back = f"rolled back from step {climb.step} to step {climb.to_step} ({climb.lost} undone)"
    precision = f", from here on in {climb.precision}" if climb.precision else ""
    return f"{back}{precision}, learning rate x {climb.lr_factor:.3g}"


def incident_row(incident: dict[str, Any]) -> str:
    """Return a row of the closing table for a rejection or a climb."""
    if "files_in_all" not in incident:
        return f"epoch {incident['epoch']}: {incident['what'].replace('_', ' ')}, {incident['reason']}"
    names = ", ".join(Path(file).name for file in incident["files"]) or "no file names"
    more = ", ..." if incident["files_in_all"] > len(incident["files"]) else ""
    what = incident["what"].replace("_", "-")
    return f"epoch {incident['epoch']}, batch {incident['batch']}: {what}, {incident['reason']} ({names}{more})"
