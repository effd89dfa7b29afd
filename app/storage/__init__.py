"""Finished model directories and the store that keeps them."""
