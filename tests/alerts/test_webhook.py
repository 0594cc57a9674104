"""Posts to a server on this machine: what it gets, and that no server holds up or ends anything."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from yolo_stable._shared.secret_url import SecretURL
from yolo_stable.alerts import webhook as posting
from yolo_stable.alerts.alert import Alert
from yolo_stable.alerts.webhook import Webhook

KEY = "/services/kEy"


class Server:
    """A receiver; ``got`` has path, headers and content of each request."""

    def __init__(self, answer: int = 200, location: str = "", waits: threading.Event | None = None) -> None:
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.got.append((self.command, self.path, dict(self.headers), content))
                if waits is not None:
                    waits.wait(10)
                self.send_response(answer, f"no {KEY}" if answer == 500 else None)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - what the server's class asks for

            def log_message(self, format: str, *args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}{KEY}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(content) for *_, content in self.got]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def told() -> list[str]:
    return []


def alert(event: str = "halt") -> Alert:
    return Alert(event=event, text="Halted.", run="/runs/a", epoch=2, step=7)


def post_all(url: str, told: list[str], *events: str, seconds: float = 5.0, **how: float) -> float:
    """Post alerts, close, and return the seconds that it took the caller to hand them over."""
    webhook = Webhook(SecretURL(url), told.append, **how)
    began = time.monotonic()
    for event in events:
        webhook.post(alert(event))
    took = time.monotonic() - began
    webhook.close(seconds)
    webhook.post(alert("too late"))
    return took


def test_they_arrive_in_order_as_a_line_of_json_each(told: list[str]) -> None:
    with serving(Server()) as server:
        post_all(server.url, told, "rejections", "rollback", "halt", "end")
    assert [line["event"] for line in server.lines] == ["rejections", "rollback", "halt", "end"]
    method, path, headers, content = server.got[0]
    assert (method, path, headers["Content-Type"]) == ("POST", KEY, "application/json; charset=utf-8")
    assert headers["User-Agent"] == "yolo-stable", "Discord refuses Python's own"
    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    assert told == []


@pytest.mark.parametrize(("answer", "why"), [(500, "answers 500 no ***"), (404, "answers 404 Not Found")])
def test_a_server_that_refuses_is_told_once_without_the_key(told: list[str], answer: int, why: str) -> None:
    with serving(Server(answer)) as server:
        post_all(server.url, told, "rollback", "end")
    assert len(server.got) == 2, "it may be well again by the next one"
    host = server.url.removesuffix(KEY)
    assert told == [f"guard.alert: {host}/*** {why}. Training goes on; this is told once."]


@pytest.mark.parametrize("answer", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_to_no_other_host(told: list[str], answer: int) -> None:
    with serving(Server()) as other, serving(Server(answer, other.url)) as server:
        post_all(server.url, told, "end")
    assert (len(server.got), other.got) == (1, [])
    (line,) = told
    assert f"answers {answer} " in line
    assert "give the new address" in line
    assert "kEy" not in line


def test_a_server_that_is_not_there_is_told_once(told: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    post_all(f"http://127.0.0.1:{port}{KEY}", told, "rollback", "halt", "end")
    (line,) = told
    assert line.startswith(f"guard.alert: http://127.0.0.1:{port}/*** cannot be reached: ")
    assert "kEy" not in line


def test_one_that_speaks_no_http_is_told(told: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        post_all(f"http://127.0.0.1:{odd.getsockname()[1]}{KEY}", told, "end")
        thread.join()
    (line,) = told
    assert "cannot be reached: BadStatusLine: 220 mail" in line


class TestASlowServer:
    def test_it_holds_up_neither_the_caller_nor_the_end(self, told: list[str]) -> None:
        enough = threading.Event()
        with serving(Server(waits=enough)) as server:
            began = time.monotonic()
            took = post_all(server.url, told, *["rollback"] * 100, seconds=0.2)
            whole = time.monotonic() - began
            enough.set()
        assert took < 0.2
        assert 0.2 <= whole < 2.0
        (line,) = told
        assert "has not answered within 0.2 s: the last alert may be lost" in line
        assert len(server.got) == 1, "what had not been sent is given up"

    def test_one_past_the_time_limit_is_left_for_the_next(self, told: list[str]) -> None:
        enough = threading.Event()
        with serving(Server(waits=enough)) as server:
            post_all(server.url, told, "rollback", "end", timeout=0.1)
            enough.set()
        assert [line["event"] for line in server.lines] == ["rollback", "end"]
        (line,) = told
        assert "timed out" in line

    def test_the_newest_wait_and_the_oldest_go(self, told: list[str]) -> None:
        enough = threading.Event()
        with serving(Server(waits=enough)) as server:
            webhook = Webhook(SecretURL(server.url), told.append)
            webhook.post(alert("first"))
            while not server.got:
                time.sleep(0.005)
            for n in range(posting.WAITING + 10):
                webhook.post(alert(str(n)))
            enough.set()
            webhook.close(5.0)
        events = [line["event"] for line in server.lines]
        assert (events[0], events[1], events[-1]) == ("first", "10", str(posting.WAITING + 9))
        assert len(events) == 1 + posting.WAITING


def test_a_system_without_threads_to_give_is_told_once(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        post_all(f"http://127.0.0.1:9{KEY}", told, "rollback", "end")
    (line,) = told
    assert "gets no alerts: can't start new thread" in line


def test_without_an_alert_there_is_no_thread(told: list[str]) -> None:
    before = threading.active_count()
    webhook = Webhook(SecretURL(f"http://127.0.0.1:9{KEY}"), told.append)
    assert threading.active_count() == before
    webhook.close(5.0)
    assert told == []
