"""What `outbox config` shows of this adapter, and of Temporal's own variables and profile files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from temporalio.envconfig import ClientConfigProfile

from outbox.model.errors import ConfigurationError
from outbox.model.mask import MASK
from outbox.model.sink import Setting, SinkSettings
from outbox_temporal.sink import settings
from outbox_temporal.sink.frontend import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, options, profile
from outbox_temporal.target.table import Routes

_DEFAULT_FILE = "the file where Temporal's tools look"
_SECRET = ("API_KEY", "KEY_DATA", "GRPC_META", "CODEC_AUTH")
_TLS = {
    "TEMPORAL_TLS_SERVER_NAME": "server_name",
    "TEMPORAL_TLS_SERVER_CA_CERT": "server_root_ca_cert",
    "TEMPORAL_TLS_CLIENT_CERT": "client_cert",
    "TEMPORAL_TLS_CLIENT_KEY": "client_private_key",
}


def read() -> SinkSettings:
    """Everything that the adapter would go by, and what is wrong with it."""
    faults: list[str] = []
    shown = list(_own())
    own = (lambda: settings.load().converter(), _check_routes)
    for check in (*own, lambda: shown.extend(_temporal(profile())), lambda: options(profile())):
        try:
            check()
        except ConfigurationError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    return SinkSettings(tuple(shown), tuple(faults))


def _check_routes() -> None:
    """Read the file of routes, even if other settings are wrong. Raises ConfigurationError."""
    path = settings.routes_file(os.environ.get("OUTBOX_ROUTES"))
    if path is not None:
        Routes.load(path).require_task_queues(os.environ.get("OUTBOX_TEMPORAL_TASK_QUEUE") or None)


def _own() -> Iterator[Setting]:
    """As they were set: a reference to a converter, not the converter."""
    for field, info in settings.TemporalSettings.model_fields.items():
        name = settings.environment_name(field)
        yield Setting(name, os.environ.get(name) or info.default, _origin("default", name))


def _temporal(found: ClientConfigProfile) -> Iterator[Setting]:
    file = os.environ.get("TEMPORAL_CONFIG_FILE")
    where = f"profile {os.environ.get('TEMPORAL_PROFILE') or 'default'} in {file or _DEFAULT_FILE}"

    def setting(name: str, value: str | bool | None, default: str | bool | None = None) -> Setting:
        shown = MASK if value and any(word in name for word in _SECRET) else value
        origin = _origin("default" if value is None else where, name, f"{name}_PATH", f"{name}_DATA")
        return Setting(name, default if value is None else shown, origin)

    yield setting("TEMPORAL_ADDRESS", found.address, DEFAULT_ADDRESS)
    yield setting("TEMPORAL_NAMESPACE", found.namespace, DEFAULT_NAMESPACE)
    yield setting("TEMPORAL_API_KEY", found.api_key)
    tls = found.tls
    asked = None if tls is None or tls.disabled is None else not tls.disabled
    yield setting("TEMPORAL_TLS", asked, bool(tls or found.api_key))
    for name, attribute in _TLS.items():
        value = getattr(tls, attribute, None)
        is_place = isinstance(value, Path) or attribute == "server_name"
        yield setting(name, None if value is None else str(value) if is_place else MASK)
    yield from (setting(f"TEMPORAL_GRPC_META_{name}", MASK) for name in _names(found.grpc_meta))


def _names(headers: Mapping[str, str]) -> list[str]:
    return sorted(name.upper().replace("-", "_") for name in headers)


def _origin(otherwise: str, *names: str) -> str:
    """The first of these variables that is set, as the place where a value comes from."""
    return next((f"environment variable {name}" for name in names if os.environ.get(name)), otherwise)
