"""Model registry: named models, their versions and movable aliases."""
