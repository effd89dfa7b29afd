"""The OpenAI API for files, fine-tuning, models and completions, under `/openai/v1`."""
