"""Where a task puts what it reads: queues, callables, streams, journals."""
