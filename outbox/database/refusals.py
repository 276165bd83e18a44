"""Why one attempt to connect came to nothing, in one line that names the cause, the cure, and the setting."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import asyncpg

from outbox.database.translation import MISCONFIGURED, line
from outbox.errors import ConfigurationError, DatabaseUnavailable, OutboxError

if TYPE_CHECKING:
    from outbox.connection import Host, Server

_NOT_YET_VALID, _EXPIRED, _REVOKED = 9, 10, 23
_UNTRUSTED = {18, 19, 20, 21}
"""OpenSSL's codes for an issuer that is not among the trusted ones."""
_OTHER_NAME = {62, 64}


def explained(error: Exception, server: Server, host: Host) -> OutboxError:
    """ConfigurationError for what stays wrong until somebody mends it, DatabaseUnavailable for what may pass."""
    match error:
        case ssl.SSLError():
            return ConfigurationError(_of_tls(error, server, host))
        case asyncpg.InvalidPasswordError():
            return ConfigurationError(f"{line(error)}: {_of_password(server, host)}")
        case asyncpg.InvalidCatalogNameError():
            return ConfigurationError(f"{line(error)}: create it, or correct {server.named('dbname')}")
        case _ if isinstance(error, MISCONFIGURED):
            return ConfigurationError(f"{line(error)}: {_of_entry(error, server, host)}")
        case asyncpg.TargetServerAttributeNotMatched():
            return DatabaseUnavailable(f"it takes no writes ({server.named('target_session_attrs')})")
        case TimeoutError():
            return DatabaseUnavailable(
                f"no answer within {server.timeout_s:g} s: is {server.named('host')} right, does a firewall swallow it?"
            )
        case OSError():
            return _of_network(error, server, host)
        case _:
            return DatabaseUnavailable(line(error))


def _of_tls(error: ssl.SSLError, server: Server, host: Host) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {error.reason or line(error)} (sslcert, sslkey, ssl_min_protocol_version)"
    code, root = error.verify_code, server.tls.root()
    if code in (_EXPIRED, _NOT_YET_VALID):
        when = "has expired" if code == _EXPIRED else "is not valid yet"
        return f"the server's certificate {when}: renew it there (or set the clock here)"
    if code in _OTHER_NAME:
        return (
            f"the server's certificate is not for {host.name}: name the host in {server.named('host')} as the "
            "certificate does, or write sslmode=verify-ca with its authority in sslrootcert"
        )
    if code in _UNTRUSTED:
        trusted = f"{root.value} ({root.name})" if root else "this machine's authorities"
        return (
            f"the server's certificate is not from an authority in {trusted}: name the right one in sslrootcert "
            "or PGSSLROOTCERT"
        )
    what = "is revoked" if code == _REVOKED else f"is refused: {error.verify_message}"
    return f"the server's certificate {what}: mend it there"


def _of_password(server: Server, host: Host) -> str:
    password = server.password(host)
    if password is None:
        return f"no password is given: set it in DB_PASSWORD, DB_PASSWORD_FILE, or {server.named('host')}"
    return f"correct the one from {password.origin}"


def _of_entry(error: Exception, server: Server, host: Host) -> str:
    """What mends a missing role or line of pg_hba.conf."""
    text = str(error)
    if "no encryption" in text and server.tls.mode(host.name).value in ("disable", "allow"):
        return f"it may want TLS: write sslmode=verify-full ({server.tls.mode(host.name).name})"
    if "client certificate" in text:
        return "name the client's certificate and key in sslcert and sslkey (PGSSLCERT, PGSSLKEY)"
    if "certificate authentication" in text:
        return (
            f"the one in {server.named('sslcert')} is somebody else's: name another, or correct {server.named('user')}"
        )
    if "does not exist" in text:
        return f"create it, or correct {server.named('user')}"
    return f"allow it in the server's pg_hba.conf, or correct {server.named('user')}"


def _of_network(error: OSError, server: Server, host: Host) -> OutboxError:
    setting = server.named("host")
    if "SSL upgrade" in str(error):
        mode = server.tls.mode(host.name)
        return ConfigurationError(
            f"the server offers no TLS, and sslmode is {mode.value} ({mode.origin}): turn TLS on there, or write "
            f"sslmode=disable in {setting} if nobody else is on the network between"
        )
    if isinstance(error, socket.gaierror):
        return DatabaseUnavailable(f"the name is not known ({line(error)}): is {setting} right?")
    if host.is_socket and isinstance(error, FileNotFoundError | PermissionError):
        return DatabaseUnavailable(f"no way to its socket ({line(error)}): is {setting} right, and PostgreSQL running?")
    if "refused" in str(error).lower():
        return DatabaseUnavailable(f"refused, nobody listens there: is {setting} right, and PostgreSQL running?")
    return DatabaseUnavailable(line(error))
