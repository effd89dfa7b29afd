"""Optimizations that change speed but not results. Start at `optimize`."""
