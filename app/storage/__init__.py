"""The artifact store: models, checkpoints, results and uploads."""
