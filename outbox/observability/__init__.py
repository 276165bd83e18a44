"""What others see of a worker: logs, metrics, traces, and the pages over HTTP."""
