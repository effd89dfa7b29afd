"""Child processes with resource limits, for files that callers uploaded."""
