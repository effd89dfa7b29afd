"""Prometheus metrics of the API process, its requests and the database."""
