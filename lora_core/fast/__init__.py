"""Optimizations that change speed but not results. Start at `speed_up_training`."""
