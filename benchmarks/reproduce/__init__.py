"""The table of the "LoRA from scratch" lessons, measured on this machine."""
