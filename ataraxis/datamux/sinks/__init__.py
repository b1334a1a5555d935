"""Where a task puts its items: queues, callables, streams, journals."""
