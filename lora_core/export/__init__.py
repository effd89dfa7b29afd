"""Export models for other programs: transformers, PEFT and ONNX."""
