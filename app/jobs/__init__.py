"""Training jobs: the API, and the resolution of job descriptions."""
