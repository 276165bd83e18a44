"""What the SDK's errors about the way to Temporal mean, in words of people: a cause, and the setting to correct."""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.model.errors import OutboxError

_ADDRESS = "TEMPORAL_ADDRESS=host:7233"
_OWN = "Transport, "
"""The SDK's prefix for a fault of the client's certificate that it finds before it connects."""
_WAYS = {
    rf"{_OWN}InvalidCertificate\(.*UnsupportedCertVersion": (
        "the client's certificate is of X.509 version 1, Temporal's SDK takes version 3",
        "TEMPORAL_TLS_CLIENT_CERT_PATH=…  # issue it again: openssl x509 -req -extfile …",
    ),
    f"{_OWN}(NoCertificatesPresented|InvalidCertificate)": (
        "the client's certificate cannot be read",
        "TEMPORAL_TLS_CLIENT_CERT_PATH=…  # a file in PEM",
    ),
    f"{_OWN}(InconsistentKeys|PrivateKeyParseError)": (
        "the client's key is not that of its certificate",
        "TEMPORAL_TLS_CLIENT_KEY_PATH=…  # the key of TEMPORAL_TLS_CLIENT_CERT_PATH, in PEM",
    ),
    "UnsupportedCertVersion": (
        "the server's certificate is of X.509 version 1, Temporal's SDK takes version 3",
        f"{_ADDRESS}  # issue the certificate again there",
    ),
    "dns error": ("the name is not known", f"{_ADDRESS}  # is the name right?"),
    "ConnectionRefused": ("refused, nothing listens there", f"{_ADDRESS}  # is it right, and Temporal running?"),
    "TimedOut|[Tt]ime(d )?out|[Dd]eadline": (
        "no answer in time",
        f"{_ADDRESS}  # is it right, does a firewall swallow it?",
    ),
    "InvalidContentType|handshake eof": ("it speaks no TLS there", "TEMPORAL_TLS=false  # or the address is wrong"),
    "BrokenPipe|ConnectionReset|http2|h2 |frame": (
        "it speaks no gRPC in the clear there",
        "TEMPORAL_TLS=true  # or the address is wrong",
    ),
    "NotValidForName": (
        "the server's certificate is for another name",
        "TEMPORAL_TLS_SERVER_NAME=…  # the name in the certificate",
    ),
    "UnknownIssuer|[Cc]ertificate": (
        "the server's certificate is not from a known authority",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH=…  # the authority's certificate",
    ),
}
"""Cause and cure, by a part of the SDK's text."""


class TemporalUnreachable(OutboxError, RuntimeError):
    """There is no connection to Temporal, or no such namespace. A RuntimeError too, as the SDK raises."""


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """Why there is no connection, and what cures it: a line with a setting."""

    cause: str
    cure: str


def explain(text: str) -> ConnectionFault:
    """What the SDK's text about a failed connection means. An unknown text is its own cause."""
    for pattern, (cause, cure) in _WAYS.items():
        if re.search(pattern, text):
            return ConnectionFault(cause, cure)
    return ConnectionFault(said(text), f"{_ADDRESS}  # is it right, and Temporal there?")


def unreachable(error: Exception, address: str) -> TemporalUnreachable:
    """The SDK's error about a failed connection as one of ours: where, the cause, and the setting to check."""
    found = explain(str(error))
    setting = found.cure.partition("=")[0]
    return TemporalUnreachable(
        f"Temporal cannot be reached: {address}: {found.cause}: check {setting}; `outbox doctor` says more"
    )


def said(text: str) -> str:
    """What the other side said, out of the SDK's error about it."""
    message = re.search(r'message: "((?:[^"\\]|\\.)+)"', text)
    return message[1] if message else text
