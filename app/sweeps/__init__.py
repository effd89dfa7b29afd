"""Sweeps: one job in many settings, searched, resumed, judged."""
