"""The worker: claims jobs and supervises one training child each. Never imports torch."""
