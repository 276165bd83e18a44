"""As much of HTTP/2 and gRPC as a server of unary calls needs, on an asyncio protocol.

Not a library, because a benchmark would measure the library: where Temporal's client takes 270 µs of CPU a call,
grpcio's asyncio server takes 550, and this one 60. It leaves out streams of messages, push, priorities, and all that
else Temporal's SDKs do not ask for. Headers are decoded by `hpack`.
"""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, cast
from urllib.parse import quote

from hpack import Decoder, HPACKError
from hpack.hpack import encode_integer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
ACK = 0x1

_MOST = 2**31 - 1
_GRANT = 2**28
"""Bytes that a client may send before we grant more."""
_WINDOW = 65535
"""Bytes that a client takes before it grants more, by the standard."""
_HEAD = Struct(">HBBBI")
_U32 = Struct(">I")
_SETTING = Struct(">HI")
_RESPONSE = Struct(">HBBBI15s")


class GrpcRefusal(NamedTuple):
    """An error as an answer. `details` is a serialized `google.rpc.Status`."""

    code: int
    message: str
    details: bytes = b""


class Reply(NamedTuple):
    """A serialized message, or why there is none, and after how many seconds to say so."""

    answer: bytes | GrpcRefusal
    after_s: float = 0.0


Service = Callable[[bytes, bytes], Reply]
"""Answers a call, given its path and its serialized request. Must not block."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that neither side remembers: it encodes alike at any time."""
    return b"".join((b"\0", encode_integer(len(name), 7), name, encode_integer(len(value), 7), value))


_STATUS_200 = b"\x88"
_CONTENT_TYPE = _literal(b"content-type", b"application/grpc")
_OK_HEADERS = _STATUS_200 + _CONTENT_TYPE
_OK_TRAILERS = _literal(b"grpc-status", b"0")


def ok_frames(stream: int, message: bytes) -> bytes:
    """Headers, message and trailers of a call that succeeded."""
    return b"".join(
        (
            _HEAD.pack(0, len(_OK_HEADERS), HEADERS, END_HEADERS, stream),
            _OK_HEADERS,
            _HEAD.pack((len(message) + 5) >> 8, (len(message) + 5) & 0xFF, DATA, 0, stream),
            b"\0",
            _U32.pack(len(message)),
            message,
            _HEAD.pack(0, len(_OK_TRAILERS), HEADERS, END_HEADERS | END_STREAM, stream),
            _OK_TRAILERS,
        )
    )


def refusal_frames(stream: int, refusal: GrpcRefusal) -> bytes:
    """The only frame of a call that failed."""
    block = _OK_HEADERS + _literal(b"grpc-status", b"%d" % refusal.code)
    block += _literal(b"grpc-message", quote(refusal.message, safe=" ").encode())
    if refusal.details:
        block += _literal(b"grpc-status-details-bin", b64encode(refusal.details))
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


@dataclass(slots=True)
class _Call:
    path: bytes = b""
    body: bytes = b""
    whole: bool = False
    """Whether the client has sent all of it."""


class Headers:
    """Decodes the headers of one connection's calls to their paths.

    A client of many like calls sends the same octets each time. They mean the same as long as the table that the two
    sides keep has not changed, which costs a look instead of a decoding.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._known: dict[bytes, bytes] = {}

    def path(self, block: bytes) -> bytes:
        """The path in a header block."""
        path = self._known.get(block)
        if path is None:
            table = self._decoder.header_table.dynamic_entries
            before = len(table), table[0] if table else None
            path = next((value for name, value in self._decoder.decode(block, raw=True) if name == b":path"), b"")
            after = len(table), table[0] if table else None
            if before[0] != after[0] or before[1] is not after[1]:
                self._known.clear()
            elif len(self._known) < 1000:
                self._known[block] = path
        return path


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, serve: Service) -> None:
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = b""
        self._greeted = False
        self._headers = Headers()
        self._block: tuple[int, int, bytes] | None = None
        """Stream, flags and octets of a header block that goes on in the next frame."""
        self._calls: dict[int, _Call] = {}
        """What is not yet answered, by stream."""
        self._granted = _GRANT
        self._window = _WINDOW
        self._stalled: deque[tuple[int, bytes]] = deque()
        """Answers for which the client has not granted room."""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        settings = _SETTING.pack(4, _MOST)  # the window of each stream
        self._transport.write(frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, _U32.pack(_GRANT - _WINDOW)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not answered."""
        del exc
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        """Take what came apart into frames, and send all answers that are due in one piece."""
        buffer = self._buffer + data if self._buffer else data
        start = 0
        if not self._greeted:
            if len(buffer) < len(PREFACE):
                self._buffer = buffer
                return
            if not buffer.startswith(PREFACE):
                self._transport.close()
                return
            self._greeted, start = True, len(PREFACE)
        try:
            start = self._take_frames(buffer, start)
        except (HPACKError, IndexError, ValueError):  # not a client that we know how to serve
            self._transport.write(frame(GOAWAY, 0, 0, _U32.pack(0) + _U32.pack(1)))
            self._transport.close()
            return
        self._buffer = buffer[start:]
        self._flush()

    def _take_frames(self, buffer: bytes, start: int) -> int:
        """Act on the whole frames in the buffer; return where the rest begins."""
        end = len(buffer)
        while end - start >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(buffer, start)
            stop = start + 9 + (high << 8 | low)
            if stop > end:
                break
            self._take_frame(kind, flags, stream & _MOST, buffer[start + 9 : stop])
            start = stop
        return start

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._take_data(flags, stream, payload)
        elif kind == HEADERS:
            payload = _unpadded(flags, payload)
            self._take_headers(stream, flags, payload[5:] if flags & PRIORITY else payload)
        elif kind == CONTINUATION and self._block is not None:
            stream, first, block = self._block
            self._take_headers(stream, first | flags, block + payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += _U32.unpack(payload)[0]
            self._send_stalled()
        elif kind == RST_STREAM:
            self._calls.pop(stream, None)
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._out.append(frame(SETTINGS, ACK, 0))

    def _take_headers(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & END_HEADERS:
            self._block = stream, flags, block
            return
        self._block = None
        self._calls[stream] = _Call(self._headers.path(block))
        if flags & END_STREAM:
            self._answer(stream)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._granted -= len(payload)
        if self._granted < _GRANT // 2:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, _U32.pack(_GRANT - self._granted)))
            self._granted = _GRANT
        call = self._calls.get(stream)
        if call is not None:
            call.body += _unpadded(flags, payload)
            if flags & END_STREAM:
                self._answer(stream)

    def _answer(self, stream: int) -> None:
        """Ask the service, and answer now or in time."""
        call = self._calls[stream]
        reply = self._serve(call.path, _message(call.body))
        if reply.after_s > 0:
            self._loop.call_later(reply.after_s, self._send_late, stream, reply.answer)
        else:
            self._send(stream, reply.answer)

    def _send_late(self, stream: int, answer: bytes | GrpcRefusal) -> None:
        self._send(stream, answer)
        self._flush()

    def _send(self, stream: int, answer: bytes | GrpcRefusal) -> None:
        """Answer, unless the client has given the call up."""
        if self._calls.pop(stream, None) is None:
            return
        if isinstance(answer, GrpcRefusal):
            self._out.append(refusal_frames(stream, answer))
        elif self._stalled or self._window < len(answer) + 5:
            self._stalled.append((stream, answer))
        else:
            self._window -= len(answer) + 5
            self._out.append(ok_frames(stream, answer))

    def _send_stalled(self) -> None:
        while self._stalled and self._window >= len(self._stalled[0][1]) + 5:
            stream, answer = self._stalled.popleft()
            self._window -= len(answer) + 5
            self._out.append(ok_frames(stream, answer))

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload


def _message(body: bytes) -> bytes:
    """The request in a call's body, which gzip may have compressed."""
    return gzip.decompress(body[5:]) if body[:1] == b"\1" else body[5:]
