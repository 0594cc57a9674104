"""Calls: what the stubs around a service were called for, in order, and what they answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Calls(list[tuple[Any, ...]]):
    """The calls: the name, the arguments, and those that have names as a dict behind them."""

    def to(self, name: str, answer: Any = None) -> Callable[..., Any]:
        """Return a function that notes how it is called, and gives an answer; an error is raised."""

        def called(*args: Any, **kwargs: Any) -> Any:
            self.append((name, *args, *([kwargs] if kwargs else [])))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return called

    def all_to(self, *names: str) -> dict[str, Callable[..., Any]]:
        """Return such functions by name, which answer None."""
        return {name: self.to(name) for name in names}

    @property
    def names(self) -> list[str]:
        """What was called, without the arguments."""
        return [name for name, *_ in self]
