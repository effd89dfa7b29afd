from lora_core import fit
from lora_core.defaults import learning_rate, settled
from lora_core.samples import minilm
from lora_core.specs.method import BaselineSpec, FullSpec, LoraSpec
from lora_core.specs.train import TrainSpec


def test_the_rate_goes_by_method_and_width() -> None:
    assert learning_rate(LoraSpec(), 384) == 1.5e-3  # chosen on validation: decision 16
    for width in (384, 768):
        ratio = learning_rate(LoraSpec(), width) / learning_rate(FullSpec(), width)
        assert 10 <= ratio <= 20
    assert learning_rate(BaselineSpec(), 384) == 1e-3


def test_what_is_said_stands_and_the_rest_is_decided() -> None:
    shape = fit.read_shape(minilm.config(), base=minilm.NAME)
    spec, rate, length = settled(TrainSpec(method=LoraSpec()), shape)
    assert (rate, length) == (1.5e-3, 512)
    assert (spec.optim.learning_rate, spec.data.max_length) == (rate, length)
    said = {"method": {"type": "full"}, "optim": {"learning_rate": 0.5}, "data": {"max_length": 64}}
    assert settled(TrainSpec.model_validate(said), shape)[1:] == (0.5, 64)
