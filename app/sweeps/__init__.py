"""Sweeps: hyperparameter search over the fields of a job."""
