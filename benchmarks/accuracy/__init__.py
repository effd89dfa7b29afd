"""Whether the defaults of LoRA are worth having, by the texts that are answered rightly."""
