"""Multi-label, pairs and numbers, and the speed of two more encoders, beside the Trainer."""
