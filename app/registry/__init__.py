"""Named models, their versions and movable aliases."""
