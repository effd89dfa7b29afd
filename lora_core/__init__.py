"""LoRA from scratch: layers, methods, data, training and prediction. No web, queue or database.

To read it:

1. layers/lora and layers/base: the formula, its shapes, merging
2. encoders/base and encoders/distilbert: where the layers of a model are; inject, methods/lora
3. training/optim and training/loop
4. merge and artifact
5. inference/predictor, inference/adapter, inference/network
6. a whole run: training/run, training/prepare

Skip at first what gives the same numbers, faster: layers/folding, layers/held, encoders/unfused,
encoders/first_token, training/trunk; and training/ranks, which is for several processes.

By hand, with a classifier of transformers as `model`, and `batches` of token ids and their mask
(texts, length) and labels (texts,):

>>> from torch.nn.functional import cross_entropy
>>> from torch.optim import AdamW
>>> from lora_core import methods
>>> from lora_core.encoders import FAMILIES
>>> from lora_core.adapters import merge_adapters
>>> from lora_core.specs.method import LoraSpec

>>> lora = methods.build(LoraSpec(r=8, alpha=16.0))
>>> lora.prepare(model, FAMILIES[model.config.model_type])
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
