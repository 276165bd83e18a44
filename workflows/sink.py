"""thin placeholder"""
from __future__ import annotations
from contextlib import asynccontextmanager
from datetime import timedelta
import orjson
from temporalio.api.common.v1 import Payload, Payloads, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.service import RPCError, RPCStatusCode
from outbox.sink import *
from workflows.connection import connect

class S:
    def __init__(self, client, ctx): self.c=client; self.ctx=ctx
    async def deliver(self, m):
        t=orjson.loads(m.target)
        req=StartWorkflowExecutionRequest(namespace=t.get("namespace") or self.c.namespace, workflow_id=t["workflow_id"], workflow_type=WorkflowType(name=t["workflow"]), task_queue=TaskQueue(name=t["task_queue"]), request_id=str(m.message_id), identity=self.ctx.identity, workflow_id_reuse_policy=3, input=Payloads(payloads=[Payload(metadata={"encoding":b"json/plain"},data=m.payload.encode())]))
        try:
            r=await self.c.workflow_service.start_workflow_execution(req, retry=False, timeout=timedelta(seconds=5))
            return Delivered(t["workflow_id"], r.run_id)
        except RPCError as e:
            if e.status==RPCStatusCode.ALREADY_EXISTS: return Delivered(t["workflow_id"], None, duplicate=True)
            if e.status==RPCStatusCode.UNAVAILABLE: return Unavailable(e.status.name, e.message)
            return Unknown(e.status.name, e.message)
        except RuntimeError as e: return Unavailable("CONNECT", str(e))
    async def probe(self):
        try:
            await self.c.service_client.check_health(timeout=timedelta(seconds=2)); return None
        except (RPCError,RuntimeError) as e: return Unavailable("PROBE", str(e))

@asynccontextmanager
async def temporal_sink(ctx):
    yield S(await connect(lazy=True), ctx)
