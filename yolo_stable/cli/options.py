"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module, or a FILE.py, of yours that defines layers of the network. Its code is run.",
    ),
]
