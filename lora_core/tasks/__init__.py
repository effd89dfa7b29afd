"""Tasks: what a model predicts, its loss, its metrics, and the calibration of its confidence."""
