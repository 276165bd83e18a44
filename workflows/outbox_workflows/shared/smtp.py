"""Sending mail over SMTP."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio

from outbox.model.errors import ConfigurationError
from outbox_workflows.shared.mail import Mail, MailRefused

Security = Literal["starttls", "tls", "none"]
_SCHEMES = {"smtp": "starttls", "smtps": "tls"}
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_UNREADABLE = (
    "the mail server's URL cannot be read: write smtp://user:password@host:587, smtps://… for TLS from the start, or "
    "smtp://host:25?security=none, and / ? # @ in a password as %2F %3F %23 %40"
)
_MISSING = "sending mails over SMTP needs aiosmtplib: pip install 'temporal-outbox[workflows]'"
_FAREWELL_S = 1.0
"""How long to wait for the answer to QUIT."""
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
        """Raises ConfigurationError where aiosmtplib is not installed."""
        self._server, self._sender, self._smtp = server, sender, _library()

    async def send(self, mail: Mail) -> None:
        """Hand the mail in. The server's word that it has the mail is all that is known then."""
        server, smtp, taken = self._server, self._smtp, False
        try:
            with anyio.move_on_after(server.timeout_s) as scope:
                async with self._connection() as connection:
                    await connection.send_message(mail.message(self._sender))
                    taken = True  # a server that does not answer QUIT has the mail all the same
                    scope.deadline = min(scope.deadline, anyio.current_time() + _FAREWELL_S)
            if not taken:
                raise TimeoutError(f"mail to {mail.to}: no answer within {server.timeout_s:g} s")
        except smtp.SMTPRecipientsRefused as error:
            [refused] = error.recipients
            raise _classified(mail, refused.code, refused.message) from error
        except smtp.SMTPDataError as error:
            raise _classified(mail, error.code, error.message) from error
        except smtp.SMTPException as error:
            raise OSError(f"mail to {mail.to}: {error}") from error

    def _connection(self) -> Any:  # noqa: ANN401 - a class of the library
        server = self._server
        return self._smtp.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=ssl.create_default_context(cafile=server.ca_file),
            local_hostname=socket.gethostname(),  # to look the name up may take longer than all else
            timeout=None,
        )


def _library() -> Any:  # noqa: ANN401 - a module
    try:
        return import_module("aiosmtplib")
    except ImportError:
        raise ConfigurationError(_MISSING) from None


def _classified(mail: Mail, code: int, reply: str) -> Exception:
    """What the server's reply to this very mail means."""
    line = f"mail to {mail.to}: the server said {code} {' '.join(reply.split())}"
    return MailRefused(line) if code in _FOR_GOOD else OSError(line)
