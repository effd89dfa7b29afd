"""Models that were made elsewhere. Nothing of them is trusted."""
