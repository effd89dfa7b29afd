"""Batch prediction: predict every row of a file."""
