"""Accuracy of the LoRA defaults compared with other methods."""
