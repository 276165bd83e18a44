"""The worker's HTTP server: it answers, it is bounded, and a port that is taken is one clear line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from email.message import Message as Headers
from http import HTTPStatus
from time import monotonic

import pytest

from outbox.model.errors import ConfigurationError
from outbox.observability import http_server as http
from outbox.observability.http_server import HttpServer, Page, listen
from tests.support.probing import ANSWERED_WITHIN_S, ask


class Pages:
    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.go = threading.Event()

    def hello(self, _headers: Headers) -> Page:
        return Page(HTTPStatus.OK, "text/plain", b"hello")

    def slow(self, _headers: Headers) -> Page:
        self.waiting.release()
        assert self.go.wait(10)
        return Page(HTTPStatus.OK, "text/plain", b"slow")

    def faulty(self, _headers: Headers) -> Page:
        raise LookupError("secret")


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def port(pages: Pages) -> Iterator[int]:
    listener = listen("127.0.0.1", 0)
    served = {"/hello": pages.hello, "/slow": pages.slow, "/faulty": pages.faulty}
    server = HttpServer(listener, served, probes=["/hello"])
    try:
        yield listener.getsockname()[1]
    finally:
        pages.go.set()
        server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=ANSWERED_WITHIN_S)


def test_a_page_is_served_and_a_head_request_gets_its_length(port: int) -> None:
    answer = ask(port, "/hello?verbose")
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", "hello")
    assert (ask(port, "/hello", "HEAD").status, ask(port, "/hello", "HEAD").body) == (200, "")


def test_a_request_for_an_unknown_page_gets_a_list_of_pages(port: int) -> None:
    answer = ask(port, "/health")
    assert (answer.status, answer.body) == (404, "there are /hello /slow /faulty\n")
    assert ask(port, "/hello", "POST").status == 501


def test_an_internal_fault_is_an_answer_without_secrets(port: int) -> None:
    answer = ask(port, "/faulty")
    assert answer.status == 500
    assert "LookupError" in answer.body
    assert "secret" not in answer.body


def test_nonsense_is_answered_and_harms_no_other_request(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\n\n")
        assert b"Bad request" in client.recv(1000)
    assert ask(port, "/hello").body == "hello"


def test_one_slow_page_holds_up_no_other(port: int, pages: Pages) -> None:
    with connect(port) as client:
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        assert pages.waiting.acquire(timeout=ANSWERED_WITHIN_S)
        assert ask(port, "/hello").body == "hello"


def test_pages_that_take_long_are_bounded_and_leave_room_for_probes(port: int, pages: Pages) -> None:
    clients = [connect(port) for _ in range(http._SLOW_AT_ONCE)]
    for client in clients:
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        assert pages.waiting.acquire(timeout=ANSWERED_WITHIN_S)
    assert ask(port, "/slow").status == 503
    assert ask(port, "/hello").body == "hello"
    pages.go.set()
    for client in clients:
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.0 200")


def test_a_connection_too_many_ends_the_oldest_that_waits_for_its_client(port: int, pages: Pages) -> None:
    busy = connect(port)
    busy.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
    assert pages.waiting.acquire(timeout=ANSWERED_WITHIN_S)
    idle = [connect(port) for _ in range(http._AT_ONCE - 1)]
    assert ask(port, "/hello").body == "hello"
    assert idle[0].recv(1) == b""
    pages.go.set()
    assert busy.recv(1000).startswith(b"HTTP/1.0 200")
    for client in (busy, *idle):
        client.close()


class Slowloris(threading.Thread):
    """A client that sends a byte at a time and connects again whenever it is cut off."""

    def __init__(self, port: int, stop: threading.Event, ready: threading.Semaphore, every_s: float) -> None:
        super().__init__(daemon=True)
        self._port, self._stop_it, self._ready, self._every_s = port, stop, ready, every_s
        self.start()

    def run(self) -> None:
        while not self._stop_it.is_set():
            try:
                with connect(self._port) as client:
                    client.sendall(b"GET /hello HTTP/1.0\r\nX-Slow: ")
                    self._ready.release()
                    while not self._stop_it.wait(self._every_s):
                        client.sendall(b"y")
            except OSError:
                continue


def test_clients_that_send_a_byte_a_second_keep_no_probe_out(port: int) -> None:
    stop, ready = threading.Event(), threading.Semaphore(0)
    slow = [Slowloris(port, stop, ready, every_s=1.0) for _ in range(3 * http._AT_ONCE)]
    try:
        for _ in slow:
            assert ready.acquire(timeout=ANSWERED_WITHIN_S)
        assert [ask(port, "/hello").body for _ in range(35)] == ["hello"] * 35
    finally:
        stop.set()


def test_a_request_is_cut_off_at_its_deadline_however_its_bytes_drip(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_REQUEST_WITHIN_S", 0.5)
    began_s = monotonic()
    with connect(port) as client, pytest.raises(OSError, match="reset|Broken pipe"):
        client.sendall(b"GET /hello HTTP/1.0\r\n")
        while monotonic() - began_s < ANSWERED_WITHIN_S:
            client.sendall(b"X: y\r\n")
            threading.Event().wait(0.05)


def test_a_closed_server_leaves_no_thread_and_no_port_behind() -> None:
    listener = listen("*", 0)
    port = listener.getsockname()[1]
    server = HttpServer(listener, {})
    assert ask(port, "/").status == 404
    server.close()
    assert "outbox http" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        connect(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])
def test_a_port_that_is_taken_is_one_clear_line(host: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"served at .*:{port}: address already in use .*OUTBOX_HTTP_PORT"):
            listen(host, port)


def test_an_address_that_is_not_ours_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match="OUTBOX_HTTP_HOST"):
        listen("192.0.2.1", 9400)
