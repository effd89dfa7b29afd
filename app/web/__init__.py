"""The page: what the service knows, for people. It goes through the same doors as the API."""
