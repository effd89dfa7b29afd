"""Forgetting: a text is removed from everything that may be removed, and the rest is reported."""
