"""The job queue: leases, state transitions, worker heartbeats and dispatch."""
