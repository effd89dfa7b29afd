"""Training jobs: tables, life cycle and API."""
