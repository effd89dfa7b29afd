"""Problem kinds."""
