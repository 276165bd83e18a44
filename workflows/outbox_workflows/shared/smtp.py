"""Sending mail over SMTP."""

from __future__ import annotations

import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
from anyio import to_thread

from outbox.model.errors import ConfigurationError
from outbox_workflows.shared.mail import Mail, MailRefused

Security = Literal["starttls", "tls", "none"]
_SCHEMES = {"smtp": "starttls", "smtps": "tls"}
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_UNREADABLE = (
    "the mail server's URL cannot be read: write smtp://user:password@host:587, smtps://… for TLS from the start, or "
    "smtp://host:25?security=none, and / ? # @ in a password as %2F %3F %23 %40"
)
_FOR_GOOD = range(500, 600)
"""Replies that a repetition would only get again (RFC 5321, 4.2.1)."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mails are handed in, and how."""

    host: str
    port: int = 587
    security: Security = "starttls"
    """starttls and tls send nothing in the clear, and want a certificate that is valid for `host`."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Authorities to trust instead of the system's."""
    timeout_s: float = 10.0
    """Bounds one mail, from the connection to the server's last reply."""


def smtp_server(url: str) -> SmtpServer:
    """Read smtp://user:password@host:587 (STARTTLS), smtps://… (TLS) or smtp://host:25?security=none (in the clear).

    Special characters in user and password are written as %xx. Raises ConfigurationError, without the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text quotes what may be a password
        raise ConfigurationError(_UNREADABLE) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    security: Any = query.pop("security", _SCHEMES.get(parts.scheme))
    if security not in _PORTS or query or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigurationError(_UNREADABLE)
    user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
    return SmtpServer(parts.hostname, port or _PORTS[security], security, user, password)


class SmtpMailer:
    """Hands each mail to an SMTP server, over a connection of its own. A repeated mail keeps its Message-ID."""

    def __init__(self, server: SmtpServer, sender: str) -> None:
        self._server, self._sender = server, sender

    async def send(self, mail: Mail) -> None:
        """Hand the mail in. The server's word that it has the mail is all that is known then."""
        with anyio.fail_after(self._server.timeout_s):  # the thread itself ends with the time-out of its socket
            await to_thread.run_sync(self._send, mail, abandon_on_cancel=True)

    def _send(self, mail: Mail) -> None:
        with self._connected() as smtp:
            try:
                smtp.send_message(mail.message(self._sender))
            except smtplib.SMTPRecipientsRefused as error:
                [(code, reply)] = error.recipients.values()
                raise _classified(mail, code, reply) from error
            except smtplib.SMTPDataError as error:
                raise _classified(mail, error.smtp_code, error.smtp_error) from error

    def _connected(self) -> smtplib.SMTP:
        """A connection that is as secure as it must be, and logged in."""
        server, name = self._server, socket.gethostname()  # to look the name up may take longer than all else
        context = None if server.security == "none" else ssl.create_default_context(cafile=server.ca_file)
        if server.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, local_hostname=name, timeout=server.timeout_s, context=context
            )
        else:
            smtp = smtplib.SMTP(server.host, server.port, local_hostname=name, timeout=server.timeout_s)
        try:
            if server.security == "starttls":
                smtp.starttls(context=context)
            if server.user is not None:
                smtp.login(server.user, server.password or "")
        except BaseException:
            smtp.close()
            raise
        return smtp


def _classified(mail: Mail, code: int, reply: bytes | str) -> Exception:
    """What the server's reply to this very mail means."""
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    line = f"mail to {mail.to}: the server said {code} {' '.join(text.split())}"
    return MailRefused(line) if code in _FOR_GOOD else OSError(line)
