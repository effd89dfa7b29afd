"""Drift: whether the texts of traffic are still like those that a version was trained on."""
