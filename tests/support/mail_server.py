"""A real SMTP server that answers as a test wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from outbox_workflows.shared.smtp import SmtpServer
from tests.support.probing import free_port


class Post:
    """A mail server's post room: keeps what is handed in, after the replies that a test wants first."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.replies: list[str] = []
        self.rcpt_replies: list[str] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        if self.rcpt_replies:
            return self.rcpt_replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        self.taken.append(envelope)
        return self.replies.pop(0) if self.replies else "250 OK"


@contextmanager
def mail_server(post: Post, **options: Any) -> Iterator[SmtpServer]:
    """A mail server for the block, and how it is reached."""
    server = Controller(post, hostname="127.0.0.1", port=free_port(), ready_timeout=30.0, **options)
    server.start()
    try:
        yield SmtpServer("127.0.0.1", server.port, security="none", timeout_s=5.0)
    finally:
        server.stop()
