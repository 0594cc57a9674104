"""Shell text: commands in a text for people, each on its own line to copy."""

from __future__ import annotations

AGAIN = "yolo-stable train DATA model=MODEL"
GO_ON = "yolo-stable train DATA model=LAST resume=True"
CHECK = "yolo-stable check DATA"
"""Commands in several messages; ``DATA``, ``MODEL`` and ``LAST`` stand for data set, network and checkpoint."""
COMMANDS = ("yolo-stable ", "pip ", "export ", "unset ")
"""Beginnings of such lines."""


def is_command(line: str) -> bool:
    """Say whether a line is a command."""
    return line.startswith(COMMANDS)


def beneath(text: str) -> str:
    r"""Return a text for printing: sentences run on, and commands are indented beneath them.

    Examples:
        >>> print(beneath("It halted.\nLook at the data:\nyolo-stable check d.yaml\nThen go on."))
        It halted. Look at the data:
            yolo-stable check d.yaml
        Then go on.
    """
    lines: list[str] = []
    run_on = False
    for line in filter(None, map(str.strip, text.splitlines())):
        if is_command(line):
            lines.append(f"    {line}")
        elif run_on:
            lines[-1] += f" {line}"
        else:
            lines.append(line)
        run_on = not is_command(line)
    return "\n".join(lines)
