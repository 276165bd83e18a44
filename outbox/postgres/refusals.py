"""Why one attempt to connect came to nothing: how far it got, the cause, the cure, and the setting."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import asyncpg

from outbox.model.errors import ConfigurationError, DatabaseUnavailable, OutboxError
from outbox.postgres.errors import MISCONFIGURED, line

if TYPE_CHECKING:
    from outbox.postgres.address import ConnectionParameters, Host

Stage = Literal["reach", "tls", "enter", "write"]
"""How far it got: to the host, through TLS, into the database, to a server that takes writes."""
_NOT_YET_VALID, _EXPIRED, _REVOKED = 9, 10, 23
_UNTRUSTED = {18, 19, 20, 21}
"""OpenSSL's codes for an issuer that is not among the trusted ones."""
_OTHER_NAME = {62, 64}
_CUT = (ConnectionResetError, asyncpg.ConnectionDoesNotExistError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an attempt failed, in one line. What is `lasting` stays wrong until it is repaired, the rest may pass."""

    stage: Stage
    cause: str
    cure: str | None = None
    lasting: bool = False

    def __str__(self) -> str:
        """As in errors."""
        return f"{self.cause}: {self.cure}" if self.cure else self.cause

    def error(self, doing: str) -> OutboxError:
        """The error that it is."""
        return (ConfigurationError if self.lasting else DatabaseUnavailable)(f"{doing}: {self}")


def explained(error: Exception, server: ConnectionParameters, host: Host) -> Refusal:
    """What an attempt's exception means."""
    match error:
        case _ if _is_cut(error):
            return _cut(server)
        case ssl.SSLError():
            return Refusal("tls", *_of_tls(error, server, host), lasting=True)
        case asyncpg.InvalidPasswordError():
            return Refusal("enter", line(error), _of_password(server, host), lasting=True)
        case asyncpg.InvalidCatalogNameError():
            return Refusal("enter", line(error), f"create it, or correct {server.named('dbname')}", lasting=True)
        case _ if isinstance(error, MISCONFIGURED):
            return Refusal("enter", line(error), _of_entry(error, server, host), lasting=True)
        case asyncpg.PostgresError() if is_of_parameters(error):
            given = server.given.get("options")
            cure = f"correct options in {given.name}" if given else "something between, a pooler perhaps, takes none"
            return Refusal("enter", line(error), cure, lasting=True)
        case asyncpg.TargetServerAttributeNotMatched():
            return Refusal("write", f"it takes no writes ({server.named('target_session_attrs')})")
        case TimeoutError():
            cure = f"is {server.named('host')} right, does a firewall swallow it?"
            return Refusal("reach", f"no answer within {server.timeout_s:g} s", cure)
        case OSError():
            return _of_network(error, server, host)
        case _:
            return Refusal("enter", line(error))


def _of_tls(error: ssl.SSLError, server: ConnectionParameters, host: Host) -> tuple[str, str]:
    """Cause and cure."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed, {error.reason or line(error)}", "look at sslcert, sslkey, ssl_min_protocol_version"
    code, root = error.verify_code, server.tls.root()
    if code in (_EXPIRED, _NOT_YET_VALID):
        when = "has expired" if code == _EXPIRED else "is not valid yet"
        return f"the server's certificate {when}", "renew it there (or set the clock here)"
    if code in _OTHER_NAME:
        name_it = f"name the host in {server.named('host')} as the certificate does"
        cure = f"{name_it}, or write sslmode=verify-ca with its authority in sslrootcert"
        return f"the server's certificate is not for {host.name}", cure
    if code in _UNTRUSTED:
        trusted = f"{root.value} ({root.name})" if root else "this machine's authorities"
        return (
            f"the server's certificate is not from an authority in {trusted}",
            "name the right one in sslrootcert or PGSSLROOTCERT",
        )
    what = "is revoked" if code == _REVOKED else f"is refused: {error.verify_message}"
    return f"the server's certificate {what}", "repair it there"


def _of_password(server: ConnectionParameters, host: Host) -> str:
    password = server.password(host)
    if password is None:
        return "no password is given: set it in DB_PASSWORD or DB_PASSWORD_FILE, or in the connection string"
    return f"correct the one from {password.origin}"


def _of_entry(error: Exception, server: ConnectionParameters, host: Host) -> str:
    """What repairs a missing role or line of pg_hba.conf."""
    text = str(error)
    if "no encryption" in text and server.tls.mode(host.name).value in ("disable", "allow"):
        return f"it may want TLS: write sslmode=verify-full ({server.tls.mode(host.name).name})"
    if "client certificate" in text:
        return "name the client's certificate and key in sslcert and sslkey (PGSSLCERT, PGSSLKEY)"
    if "certificate authentication" in text:
        return (
            f"the one in {server.named('sslcert')} is another user's: name another, or correct {server.named('user')}"
        )
    user = server.named("user") if "user" in server.given else "the user: set DB_USER"
    if getattr(error, "server_source_function", None) == "InitializeSessionUserId":  # in any language of the server
        return f"create it, or correct {user}"
    return f"allow it in the server's pg_hba.conf, or correct {user}"


def _of_network(error: OSError, server: ConnectionParameters, host: Host) -> Refusal:
    setting = server.named("host")
    if "SSL upgrade" in str(error):
        mode = server.tls.mode(host.name)
        cause = f"the server offers no TLS, if it is PostgreSQL, and sslmode is {mode.value} ({mode.origin})"
        cure = f"turn TLS on there, or write sslmode=disable in {setting} if the network between is trusted"
        return Refusal("tls", cause, cure, lasting=True)
    if isinstance(error, socket.gaierror):
        return Refusal("reach", f"the name is not known ({line(error)})", f"is {setting} right?")
    running = f"is {setting} right, and PostgreSQL running?"
    if host.is_socket and isinstance(error, FileNotFoundError | PermissionError):
        return Refusal("reach", f"no way to its socket ({line(error)})", running)
    if "refused" in str(error).lower():
        return Refusal("reach", "refused, no server listens there", running)
    if "connection_lost" in str(error):  # as the driver puts it
        return _cut(server)
    return Refusal("reach", line(error))


def _is_cut(error: Exception) -> bool:
    """Whether the other side ended it, or a proxy with an absent server reports that in its way."""
    return isinstance(error, _CUT) or (isinstance(error, ssl.SSLError) and error.reason == "TLSV1_ALERT_INTERNAL_ERROR")


def is_of_parameters(error: Exception) -> bool:
    """Whether the server, or a pooler before it, does not take a parameter of the session."""
    return isinstance(error, asyncpg.UndefinedObjectError | asyncpg.CantChangeRuntimeParamError) or (
        "unsupported startup parameter" in str(error)
    )


def _cut(server: ConnectionParameters) -> Refusal:
    """The connection was accepted, and ended before PostgreSQL had let us in."""
    asked = f"is PostgreSQL running behind what listens there, and is {server.named('host')} right?"
    return Refusal("reach", "the connection was cut off before PostgreSQL answered", asked)
