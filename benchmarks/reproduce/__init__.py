"""The table of the "LoRA from scratch" lessons, measured with what this machine has."""
