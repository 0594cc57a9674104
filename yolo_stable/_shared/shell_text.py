"""Shell text: commands in a text for people, each on a line of its own, so that it can be copied."""

from __future__ import annotations

AGAIN = "yolo-stable train DATA model=MODEL"
GO_ON = "yolo-stable train DATA model=LAST resume=True"
CHECK = "yolo-stable check DATA"
"""Commands that are told in several places; ``DATA``, ``MODEL`` and ``LAST`` stand for data set, network and checkpoint."""
COMMANDS = ("yolo-stable ", "pip ", "export ", "unset ")
"""How such a line begins."""


def is_command(line: str) -> bool:
    """Return whether a line is to be typed."""
    return line.startswith(COMMANDS)


def beneath(text: str) -> str:
    r"""Return a text as it is printed: sentences run on, and commands stand indented beneath them.

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
