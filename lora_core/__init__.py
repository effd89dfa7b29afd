"""LoRA from scratch: layers, methods, data, training, prediction. No web, queue or database.

Reading order:

1. layers/base and layers/lora: the formula, its shapes, merging
2. encoders/families, adapters and fine_tuning_methods: where the layers of a model are, and which
   are trained
3. training/optim and training/loop
4. artifact: what a run saves
5. inference/predictor, inference/adapter, inference/packed_encoder
6. a whole run: training/encoder, training/prepare

Skip `fast/` at first: it computes the same numbers, only faster. Skip `distributed` too: it is for
several processes.

A minimal training loop, with a classifier of transformers as `model`, and `batches` of token ids
and attention masks (texts, length) and labels (texts,):

>>> from torch.nn.functional import cross_entropy
>>> from torch.optim import AdamW
>>> from lora_core import fine_tuning_methods
>>> from lora_core.encoders import get_family
>>> from lora_core.adapters import merge_adapters
>>> from lora_core.specs.method import LoraSpec

>>> lora = fine_tuning_methods.build_method(LoraSpec(r=8, alpha=16.0))
>>> lora.prepare(model, get_family(model.config.to_dict()))
>>> optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1.5e-3)
>>> for input_ids, mask, labels in batches:
...     loss = cross_entropy(model(input_ids, attention_mask=mask).logits, labels)
...     loss.backward()
...     optimizer.step()
...     optimizer.zero_grad()
>>> merge_adapters(model)
>>> model.save_pretrained("merged")
"""

__version__ = "0.1.0"
