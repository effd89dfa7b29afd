"""The comparison of recent texts with those of training: what it needs, and its report."""

from lora_core.specs.fields import FrozenModel
from lora_core.specs.text_input import TextInput, text_or_pair

MIN_TEXTS = 50  # of each side; fewer say nothing
MAX_TEXTS = 1000  # of each side; more are sampled
MAX_CHARACTERS = 5000  # of a text, or of each text of a pair: the rest is not compared
MAX_DIFFERENT = 10  # of the most different texts, which a report names


class RecentText(FrozenModel):
    """A text that was predicted, or a pair of texts."""

    text: str
    text_pair: str | None = None

    @property
    def input(self) -> TextInput:
        """What a model reads."""
        return text_or_pair(self.text, self.text_pair)


class DriftReport(FrozenModel):
    """Whether recent texts differ from those of training.

    With fewer than `MIN_TEXTS` different texts on a side, there is no p value and no AUC.
    """

    training_texts: int  # that were compared; no text counts twice
    recent_texts: int
    p_value: float | None = None
    auc: float | None = None  # of recent against training texts; 0.5: they cannot be distinguished
    # Positions among the recent texts that were sent, the most different first
    most_different: tuple[int, ...] = ()
