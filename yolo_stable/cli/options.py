"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import your module or FILE.py that defines layers of the network. This runs its code.",
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write all results as JSON.")]
TrainData = Annotated[
    str, typer.Argument(metavar="DATA", help="Path of a data.yaml, or 'digits' or 'shapes' (made on first use).")
]
