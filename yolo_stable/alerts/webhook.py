"""Webhook: posts alerts from a thread of its own, so that no server can hold up a training, and none can end it.

A post is one ``POST`` of a line of JSON, for which the standard library has all there is to have: a timeout, proxies, TLS. A
library would add retries, cookies and pools of connections, and a dependency of every training for a post an hour.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from .._shared.secret_url import SecretURL
from .._shared.text import one_line
from .alert import Alert

TIMEOUT = 5.0
"""Seconds for a server to take the connection, and for each part of its answer."""
WAITING = 32
"""Alerts that wait at most; the oldest goes."""
HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "yolo-stable",  # Discord refuses that of Python's own library
}


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: it would turn the post into a request without content, and hand the key to another host."""

    def redirect_request(self, req: object, fp: object, code: int, msg: str, headers: object, newurl: str) -> None:
        """Leave the answer to be an error."""


class Webhook:
    """Posts alerts one after the other.

    What the server does is told once: it refuses, is too slow, or does not exist. Further alerts are tried all the same.

    Args:
        url: Where to.
        tell: Says a line to the user; called from the thread.
        timeout: Seconds for a connection, and for each part of an answer.
    """

    def __init__(self, url: SecretURL, tell: Callable[[str], None], timeout: float = TIMEOUT) -> None:
        self.url, self._tell, self._timeout = url, tell, timeout
        self._opener = build_opener(_NoRedirect)
        self._waiting: deque[Alert] = deque(maxlen=WAITING)
        self._news = threading.Condition()
        self._closed = self._told = False
        self._thread: threading.Thread | None = None

    def post(self, alert: Alert) -> None:
        """Hand over an alert, without waiting for anything; nothing once it is closed."""
        with self._news:
            if self._closed:
                return
            self._waiting.append(alert)
            self._news.notify()
        if self._thread is None:
            # A daemon: the end of the process does not wait for a server. Workers that are forked have no such thread.
            thread = threading.Thread(target=self._run, name="yolo-stable alerts", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                self._closed = True
                self._say(f"gets no alerts: {error}")
            else:
                self._thread = thread

    def close(self, seconds: float) -> None:
        """Wait so long at most for what was handed over to be posted; then nothing more is."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            with self._news:
                self._waiting.clear()
            self._say(f"has not answered within {seconds:g} s: the last alert may be lost")

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                alert = self._waiting.popleft()
            problem = self._send(alert)
            if problem:
                self._say(problem)

    def _send(self, alert: Alert) -> str:
        """Post an alert, and return what went wrong."""
        line = alert.line(self.url.host) + "\n"
        request = Request(self.url.address, data=line.encode(), headers=HEADERS, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout):
                return ""
        except HTTPError as error:
            with error:
                moved = "; alerts follow no redirect, so give the new address" if 300 <= error.code < 400 else ""
                return f"answers {error.code} {one_line(Exception(error.reason))}{moved}"
        except URLError as error:
            return f"cannot be reached: {error.reason}"
        except (OSError, HTTPException, ValueError) as error:  # the network, an answer that is no HTTP, a host's name
            return f"cannot be reached: {type(error).__name__}: {one_line(error)}"

    def _say(self, problem: str) -> None:
        with self._news:
            told, self._told = self._told, True
        if not told:
            self._tell(f"guard.alert: {self.url} {self.url.hidden(problem)}. Training goes on; this is told once.")
