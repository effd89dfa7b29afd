"""The native engine: the blocks of an encoder in C++, for processors with bf16 instructions.

- `product.h`: the product of a few rows with 32 columns, once per instruction set, and how weights
  are packed for it
- `vectors.h`: sixteen floats at a time; exponential, GELU, rounding
- `attention.h`: attention of one text and head; `threads.h`: threads, and the memory of a call
- `encoder.cpp`: for serving, all blocks of a batch, with LoRA
- `training.cpp`: attention with gradients
- `build.py`: compiles them, when loraworks is installed
- `library.py`: loads what was compiled, and mirrors the C structures
- `blocks.py`: packs the weights of a model, and computes a batch; `attention.py`: for training

The sources are compiled once per instruction set. The variant `portable` needs none: the tests
compare it, like the others, with torch and float64, so that they run on any machine. Nothing else
uses it.
"""
