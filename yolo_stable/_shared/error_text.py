"""Error text: what another library has raised, for a sentence of ours."""

from __future__ import annotations

import re


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line without decoration."""
    text = re.sub(r"\x1b\[[0-9;]*m|\s*(❌|⚠️)", "", str(error))
    return " ".join(text.split()) or type(error).__name__
