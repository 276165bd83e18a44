"""What a request must be like. Pure, and silent about values: what is refused here may be a password."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

from outbox_workflows.shared.saga_types import LONGEST_S, no_time
from outbox_workflows.shared.storable_text import is_storable
from outbox_workflows.tenant.types import Change, DeletionOrder, NewTenant, TenantOrder

_LONGEST_NAME = 200
_UNSTORABLE = "a NUL character or half of one, which PostgreSQL does not take"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_HASHES = re.compile(
    r"\$argon2(?:id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}"
    r"|\$scrypt\$ln=\d+,r=\d+,p=\d+\$[A-Za-z0-9+/.]{11,}=*\$[A-Za-z0-9+/.]{22,}=*"
    r"|\$2[aby]\$\d\d\$[A-Za-z0-9./]{53}"
)
_CHANGES = {
    "name": "create-tenant",
    "company_name": "create-tenant",
    "admin_email": "create-admin-user",
    "billing_plan": "set-up-data",
    "preferences": "set-up-data",
}


def looks_hashed(password_hash: str) -> bool:
    """Whether this is the hash of a password: a PHC string of argon2 or scrypt, or bcrypt's form."""
    return _HASHES.fullmatch(password_hash) is not None


def faults_of(request: NewTenant) -> list[str]:
    """What is wrong with a request, a line each, without any value of it."""
    admin = request.admin
    found = [
        (not is_uuid(request.tenant_id), "tenant_id is no UUID"),
        (not request.name.strip(), "name is missing"),
        (len(request.name) > _LONGEST_NAME, f"name is longer than {_LONGEST_NAME} characters"),
        (len(request.company_name) > _LONGEST_NAME, f"company_name is longer than {_LONGEST_NAME} characters"),
        (bool(request.company_name) and not request.company_name.strip(), "company_name is blank"),
        (_EMAIL.fullmatch(admin.email) is None, "admin.email is no e-mail address"),
        (
            not looks_hashed(admin.password_hash),
            "admin.password_hash is not the hash of a password: hash it before the request is written down",
        ),
        (not request.billing_plan.strip(), "billing_plan is missing"),
        (not all(name.strip() for name in request.preferences), "a preference has no name"),
        (not all(map(is_storable, _texts(request))), _UNSTORABLE),
    ]
    return [fault for wrong, fault in found if wrong] + request.patience.faults()


def faults_of_order(order: TenantOrder) -> list[str]:
    """What is wrong with an order to turn or delete a tenant, a line each."""
    found = [] if is_uuid(order.tenant_id) else ["tenant_id is no UUID"]
    if not all(map(is_storable, (order.requested_by, order.reason))):
        found.append(_UNSTORABLE)
    if isinstance(order, DeletionOrder) and not 0 <= order.grace_s <= LONGEST_S:
        found.append(no_time("grace_s"))
    return found + order.patience.faults()


def checked(request: NewTenant) -> NewTenant:
    """Return a request if TenantCreation will take it; for producers, before they write it down.

    Raises ValueError that says what is wrong without repeating it.
    """
    if faults := faults_of(request):
        raise ValueError("; ".join(faults))
    return request


def changed(request: NewTenant, change: Change) -> NewTenant:
    """The request with a change in it."""
    fields = {name: getattr(change, name) for name in _CHANGES if getattr(change, name) is not None}
    email = fields.pop("admin_email", None)
    admin = request.admin if email is None else replace(request.admin, email=email)
    return replace(request, admin=admin, **fields)


def too_late_for(change: Change, begun: list[str]) -> list[str]:
    """What a change would change although the step that uses it has begun."""
    return [name for name, step in _CHANGES.items() if getattr(change, name) is not None and step in begun]


def is_empty(change: Change) -> bool:
    """Whether a change changes nothing."""
    return all(getattr(change, name) is None for name in _CHANGES)


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its usual form."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _texts(request: NewTenant) -> list[str]:
    admin = request.admin
    own = [request.name, request.company_name, request.billing_plan, request.requested_by]
    return [*own, admin.email, admin.first_name, admin.last_name, *request.preferences, *request.preferences.values()]
