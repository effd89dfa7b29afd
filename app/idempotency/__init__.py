"""Idempotency keys: stored responses, so that a repeated request creates nothing twice."""
