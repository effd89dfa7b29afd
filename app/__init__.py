"""The service: REST API, tables and command line."""
