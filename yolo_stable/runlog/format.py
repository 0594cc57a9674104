"""Log lines: what the guard did, for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..guard import Escalation, EscalationLevel

FILES_SHOWN = 3
"""Image files named in a line; the event has all."""


def name_files(files: list[str]) -> str:
    """Return the first image files of a batch, in words."""
    if not files:
        return "Its images have no file names"
    shown = ", ".join(Path(file).name for file in files[:FILES_SHOWN])
    more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    return f"Images: {shown}{more}"


def what_was_done(escalation: Escalation) -> str:
    """Return what an escalation did, in words."""
    if escalation.level is EscalationLevel.REPAIR:
        return f"the EMA was restored from step {escalation.to_step}, training goes on"
    if escalation.level is EscalationLevel.HALT:
        kept = "" if escalation.to_step is None else f", the state was rolled back to step {escalation.to_step}"
        return f"training is halted{kept}"
    precision = f", {escalation.precision} from here on" if escalation.precision else ""
    rate = f"learning rate x {escalation.lr_factor:.3g}" if escalation.lr_factor < 1.0 else "the learning rate stays"
    return f"{_way_back(escalation)}{precision}, {rate}"


def _way_back(escalation: Escalation) -> str:
    """Return the step of the restored state and the cost: steps undone by earlier escalations are not lost again."""
    if not escalation.lost:
        return f"rolled back to step {escalation.to_step}, no step undone"
    undone = f"({escalation.lost} undone)"
    if escalation.to_step is not None and escalation.lost == escalation.step - escalation.to_step:
        return f"rolled back from step {escalation.step} to step {escalation.to_step} {undone}"
    return f"rolled back to step {escalation.to_step} {undone}"


def incident_row(incident: dict[str, Any]) -> str:
    """Return a row of the closing table for a rejection or an escalation."""
    if "files_in_all" not in incident:
        return f"epoch {incident['epoch']}: {incident['what'].replace('_', ' ')}, {incident['reason']}"
    names = ", ".join(Path(file).name for file in incident["files"]) or "no file names"
    more = ", ..." if incident["files_in_all"] > len(incident["files"]) else ""
    what = incident["what"].replace("_", "-")
    return f"epoch {incident['epoch']}, batch {incident['batch']}: {what}, {incident['reason']} ({names}{more})"
