"""One training loop for every method, and what surrounds it."""
