"""Multi-label, pairs and numbers, and the speed of two more encoders, beside the Trainer.

Accuracies compare our defaults with the Trainer at one rate that was chosen for it, not the same
job: pooling, initial head and the weights that are kept differ. Speeds are of the same job.
"""
