"""Approvals: somebody asks, somebody decides, or the next in the chain is asked. Simple, and with escalation."""
