"""Response bodies of the predict routes."""

from typing import Literal

from pydantic import Field

from app.http.fields import ResponseModel, Timestamp


class LabelScore(ResponseModel):
    """A label and its score."""

    label: str
    score: float


LabelScoreList = list[LabelScore]


class WordScore(ResponseModel):
    """A word of the text, and what it adds to the probability of the label."""

    text: str
    field: Literal["text", "text_pair"] = Field(
        "text", description="The text that the word is in: `text_pair` is the second of a pair."
    )
    start: int = Field(description="Offset of the first character in the text.")
    end: int = Field(description="Offset after the last character.")
    score: float = Field(description="Negative: the word lowers the probability of the label.")


class ExplanationView(ResponseModel):
    """The scores of the words add up to `score` minus `empty_score`."""

    label: str
    score: float = Field(description="Probability of the label.")
    empty_score: float = Field(description="Probability of the label without any of the words.")
    words: list[WordScore]
    grouped: bool = Field(description="Neighboring words count as one, because there are many.")
    texts: int = Field(description="Number of texts that the model computed for this.")


class ShadowView(ResponseModel):
    """A candidate compared with the version in production, in this process since it started."""

    version: str
    shadow: str
    since: Timestamp
    texts: int
    agreement: float | None  # share of texts with the same most probable label
    mean_difference: float | None  # of the probability of production's label
    skipped: int  # texts, because the service was busy
    failed: int
