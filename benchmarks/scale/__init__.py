"""Response times of an installation with 100,000 jobs."""
