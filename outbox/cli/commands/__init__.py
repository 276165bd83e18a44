"""The core's commands, each with its options, its questions and its exit code.

They are named here and imported when they are asked for: a worker's start does not pay for the tables of the others.
"""

from __future__ import annotations

COMMANDS = {
    "adopt": "outbox.cli.commands.adopt:adopt",
    "cancel": "outbox.cli.commands.cancel:cancel",
    "config": "outbox.cli.commands.config:config",
    "dead": "outbox.cli.commands.dead.command:app",
    "doctor": "outbox.cli.commands.doctor:doctor",
    "enqueue": "outbox.cli.commands.enqueue:enqueue",
    "find": "outbox.cli.commands.find:find",
    "health": "outbox.cli.commands.health:health",
    "limit": "outbox.cli.commands.rules:limit",
    "migrate": "outbox.cli.commands.migrate:migrate",
    "mode": "outbox.cli.commands.mode:mode",
    "pause": "outbox.cli.commands.rules:pause",
    "prune": "outbox.cli.commands.prune:prune",
    "reset": "outbox.cli.commands.reset:reset",
    "resume": "outbox.cli.commands.rules:resume",
    "run": "outbox.cli.commands.run:run",
    "status": "outbox.cli.commands.status:status",
}
