"""Log lines: what the terminal shows of what the guard did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..guard import Climb, Rung

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
    precision = f", from here on in {climb.precision}" if climb.precision else ""
    rate = f"learning rate x {climb.lr_factor:.3g}" if climb.lr_factor < 1.0 else "the learning rate stays"
    return f"{_way_back(climb)}{precision}, {rate}"


def _way_back(climb: Climb) -> str:
    """Return where the state was put back to and what that cost: steps that earlier climbs had undone are not lost again."""
    if not climb.lost:
        return f"put back to step {climb.to_step}, no step undone"
    undone = f"({climb.lost} undone)"
    if climb.to_step is not None and climb.lost == climb.step - climb.to_step:
        return f"rolled back from step {climb.step} to step {climb.to_step} {undone}"
    return f"rolled back to step {climb.to_step} {undone}"


def incident_row(incident: dict[str, Any]) -> str:
    """Return a row of the closing table for a rejection or a climb."""
    if "files_in_all" not in incident:
        return f"epoch {incident['epoch']}: {incident['what'].replace('_', ' ')}, {incident['reason']}"
    names = ", ".join(Path(file).name for file in incident["files"]) or "no file names"
    more = ", ..." if incident["files_in_all"] > len(incident["files"]) else ""
    what = incident["what"].replace("_", "-")
    return f"epoch {incident['epoch']}, batch {incident['batch']}: {what}, {incident['reason']} ({names}{more})"
