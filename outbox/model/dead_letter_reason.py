"""Why a message is dead, or discarded: the one list."""

from __future__ import annotations

from typing import Literal, get_args

DeadLetterReason = Literal["rejected", "exhausted", "quarantined", "expired"]
BurialReason = Literal[DeadLetterReason, "discarded"]
"""A discarded message leaves no dead letter."""
DEAD_LETTER_REASONS: tuple[DeadLetterReason, ...] = get_args(DeadLetterReason)
BURIAL_REASONS: tuple[BurialReason, ...] = get_args(BurialReason)
