"""What the fine-tuning APIs of OpenAI and Mistral have in common."""
