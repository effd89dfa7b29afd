"""The Mistral API: files, classifier jobs, their models, and classifications."""
