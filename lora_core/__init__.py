"""LoRA from scratch: layers, methods, data, training and prediction. No web, queue or database."""

__version__ = "0.1.0"
