"""All that keeps a job from being lost: leases, transitions, heartbeats, dispatch."""
