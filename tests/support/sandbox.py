"""The SDK's sandbox, which checks each workflow once in a process: it imports the workflow's modules for that, each time."""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import _Definition


class OnceCheckingRunner(SandboxedWorkflowRunner):
    """Runs workflows as a worker does by default; a later worker does not check again what an earlier one did."""

    def prepare_workflow(self, defn: _Definition) -> None:
        if defn.cls not in _checked:
            super().prepare_workflow(defn)
            _checked.add(defn.cls)


_checked: set[type] = set()
SANDBOX = OnceCheckingRunner()
