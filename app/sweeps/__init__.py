"""Sweeps: many trainings that differ in a few settings, and which of them to take."""
