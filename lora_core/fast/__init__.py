"""Everything that is there for speed alone. Layers, encoders and loop read without it."""
