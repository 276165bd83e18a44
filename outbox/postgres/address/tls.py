"""TLS towards PostgreSQL: verified in full for every host but this machine, unless a mode was asked for.

The driver would try TLS, accept any certificate, and fall back to none in silence. See docs/decisions, ADR 15.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from outbox.postgres.address.environment import Given, Layer
from outbox.postgres.address.service_files import home_file

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ALIASES = {"no-verify": "require"}
SYSTEM = "system"
_WEAK = {
    "disable": "nothing is encrypted",
    "allow": "TLS is used only if the server insists",
    "prefer": "an attacker on the network can turn TLS off",
    "require": "traffic is encrypted, but the server is not verified",
}


_AT_HOME = {
    "sslrootcert": "root.crt",
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
    "sslcrl": "root.crl",
}
_made: dict[tuple[object, ...], ssl.SSLContext] = {}
"""Contexts by what it was made of: to read a machine's authorities takes a tenth of a second."""


def is_local(host: str) -> bool:
    """Whether a host is this machine: a socket, localhost, a loopback address."""
    if host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Tls:
    """The settings of TLS. A context is made again when a file has changed, because certificates are rotated too."""

    given: Layer

    def mode(self, host: str) -> Given:
        """The mode towards a host. Raises ConfigurationError for one that there is not."""
        if host.startswith(("/", "@")):
            return Given("disable", "sslmode", "default for a socket")
        asked = self.given.get("sslmode")
        default = "disable" if is_local(host) else "verify-full"
        why = "default for this machine" if is_local(host) else "default for another machine"
        if asked is None:
            mode = Given(default, "sslmode", why)
        else:
            word = asked.value.lower().replace("_", "-")
            mode = Given(_ALIASES.get(word, word), asked.name, asked.origin)
        if mode.value not in MODES:
            raise mode.fault(f"sslmode must be one of {', '.join(MODES)}")
        return self._bound(mode)

    def _bound(self, mode: Given) -> Given:
        """Channel binding ties password and certificate together. The driver has none; verifying does its work."""
        binding = self.given.get("channel_binding")
        if binding is None or binding.value != "require":
            return mode
        if mode.value == "disable":
            raise binding.fault(f"channel_binding=require needs TLS, and {mode.name} turns it off")
        return Given("verify-full", binding.name, f"channel_binding=require, {binding.origin}")

    def root(self) -> Given | None:
        """The file of certificate authorities; None for those of the system."""
        named = self.given.get("sslrootcert")
        if named is not None:
            return None if named.value == SYSTEM else named
        return _at_home("sslrootcert")

    def doubt(self, host: str) -> str | None:
        """Why the mode towards a host is weak, if it is."""
        mode = self.mode(host)
        if is_local(host) or mode.value not in _WEAK or (mode.value == "require" and self.root()):
            return None
        return (
            f"{mode.name} asks for sslmode={mode.value} towards {host}: {_WEAK[mode.value]}; "
            "leave it out, or write sslmode=verify-full, and name the authority in sslrootcert"
        )

    def contexts(self, host: str) -> list[ssl.SSLContext | None]:
        """What to try on a host, in this order; None is without TLS. Raises ConfigurationError."""
        mode = self.mode(host).value
        if mode == "disable":
            return [None]
        made_of = (mode, *self._files())
        context = _made.get(made_of)
        if context is None:
            context = self._context(mode)
            if len(_made) > 4:
                _made.clear()  # of former certificates
            _made[made_of] = context
        return {"prefer": [context, None], "allow": [None, context]}.get(mode, [context])

    def _files(self) -> Iterator[tuple[object, ...]]:
        """Everything that a context is made of, files by their state."""
        paths = ssl.get_default_verify_paths()
        yield _state(paths.cafile), _state(paths.capath)
        for name in ("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"):
            yield name, self.given[name].value if name in self.given else None
        for name in _AT_HOME:
            file = self.given.get(name) or _at_home(name)
            yield name, file and file.value, _state(file.value) if file else None

    def direct(self) -> bool:
        """Whether TLS begins without asking PostgreSQL first. Raises ConfigurationError."""
        asked = self.given.get("sslnegotiation")
        if asked is not None and asked.value not in ("postgres", "direct"):
            raise asked.fault("sslnegotiation must be postgres or direct")
        return asked is not None and asked.value == "direct"

    def _context(self, mode: str) -> ssl.SSLContext:
        root = self.root()
        if mode == "require" and root is not None:
            mode = "verify-ca"  # as libpq does, for the sake of those who relied on it before there were modes
        if mode == "verify-ca" and root is None:
            raise self.given["sslmode"].fault(
                "sslmode=verify-ca without sslrootcert would accept any public certificate: "
                "name the authority in sslrootcert, or write verify-full"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify") else ssl.CERT_NONE
        if root is not None:
            with _readable(root, "sslrootcert", "certificate"):
                context.load_verify_locations(cafile=root.value)
        elif mode == "verify-full":
            context.load_default_certs()
        self._revoke(context)
        self._show_ourselves(context)
        context.minimum_version = self._version("ssl_min_protocol_version", ssl.TLSVersion.TLSv1_2)
        context.maximum_version = self._version("ssl_max_protocol_version", ssl.TLSVersion.MAXIMUM_SUPPORTED)
        context.set_alpn_protocols(["postgresql"])
        return context

    def _revoke(self, context: ssl.SSLContext) -> None:
        revoked = self.given.get("sslcrl") or _at_home("sslcrl")
        if revoked is not None:
            with _readable(revoked, "sslcrl", "revocation list"):
                context.load_verify_locations(cafile=revoked.value)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

    def _show_ourselves(self, context: ssl.SSLContext) -> None:
        """Load the client's certificate."""
        certificate = self.given.get("sslcert") or _at_home("sslcert")
        key = self.given.get("sslkey") or _at_home("sslkey")
        if certificate is None:
            return
        password = self.given.get("sslpassword")
        for parameter, file in (("sslcert", certificate), *((("sslkey", key),) if key else ())):
            with _readable(file, parameter, "file"), Path(file.value).open("rb"):
                pass  # OpenSSL's error for a missing file does not name it
        with _readable(certificate, "sslcert", "certificate and key that belong together"):
            context.load_cert_chain(
                certificate.value, key.value if key else None, password.value if password else lambda: b""
            )

    def _version(self, name: str, default: ssl.TLSVersion) -> ssl.TLSVersion:
        asked = self.given.get(name)
        if asked is None:
            return default
        try:
            return ssl.TLSVersion[asked.value.replace(".", "_")]
        except KeyError:
            raise asked.fault(f"{name} must be TLSv1.2 or TLSv1.3") from None


@contextmanager
def _readable(file: Given, parameter: str, what: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:  # before OSError, because it is one
        raise file.fault(f"there is no {what} in {file.value!r} ({error.reason or 'not readable'})") from error
    except OSError as error:
        raise file.fault(f"{parameter} is {file.value!r}: {error.strerror}") from error


def _at_home(parameter: str) -> Given | None:
    path = home_file(f".postgresql/{_AT_HOME[parameter]}")
    try:
        found = path is not None and path.exists()
    except OSError:
        found = False
    return Given(str(path), parameter, f"file {path}") if found else None


def _state(path: str | None) -> tuple[int, ...] | None:
    """What changes when a file does."""
    try:
        found = Path(path or "").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
