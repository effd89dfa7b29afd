"""Base models: trying one before anything is trained on it."""
