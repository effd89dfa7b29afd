"""How fast we train, side by side with PEFT and the Trainer of transformers."""
