"""Child processes with limits, for files that callers sent."""
