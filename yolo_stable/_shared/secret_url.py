"""Secret URL: an address that holds a key, and that shows its host alone wherever it is written."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

MASK = "***"
"""Stands for everything behind the host."""


class SecretURL:
    """An ``http`` or ``https`` address; ``str`` and ``repr`` keep its path to themselves.

    Args:
        address: In full, or as :meth:`__str__` has written it to a file.

    Raises:
        ValueError: It is no such address. The message does not repeat it.

    Examples:
        >>> str(SecretURL("https://hooks.slack.com/services/T0/B0/key"))
        'https://hooks.slack.com/***'
    """

    __slots__ = ("address",)

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:  # its message repeats a part of the address
            raise ValueError("its host or its port cannot be read") from None
        if parts.scheme not in {"http", "https"}:
            raise ValueError("it does not begin with https:// or http://")
        if re.search(r"[^!-~]", address):
            raise ValueError("it has a space or another character that an address must write as %XX")
        if not parts.hostname or "@" in parts.netloc or port == 0:
            raise ValueError("it must name a host, with a port where needed, and no user")
        self.address = address

    @property
    def host(self) -> str:
        """The host's name in lower case, without a port."""
        return urlsplit(self.address).hostname or ""

    @property
    def masked(self) -> bool:
        """Whether this is what was written to a file, which nobody can post to."""
        return urlsplit(self.address).path == f"/{MASK}"

    def hidden(self, text: str) -> str:
        """Return a text, such as an error's, without anything of the address but its host."""
        parts = urlsplit(self.address)
        for secret in (self.address, parts.path, parts.query, parts.fragment):
            if len(secret) > 1:
                text = text.replace(secret, MASK)
        return text

    def __str__(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}/{MASK}"

    def __repr__(self) -> str:
        return f"SecretURL({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretURL) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)
