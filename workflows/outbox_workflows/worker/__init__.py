"""The process that carries out the workflows: `outbox workflows run`."""
