"""Choosing the next token, each row with its own numbers: see `choose.py` for the order."""

from infer.sampling.choose import NOT_FINITE, NOTHING_ALLOWED, Choice, choose, sample
from infer.sampling.logprobs import MAX_LOGPROBS
from infer.sampling.masks import full_mask, mask_of, num_words
from infer.sampling.parameters import (
    GREEDY,
    MAX_LOGIT_BIASES,
    SamplingParameters,
    override_sampling,
)
from infer.sampling.penalties import TokenCounts, count_chosen, count_rows
from infer.sampling.prompt_logprobs import PromptLogprobs, prompt_logprobs
from infer.sampling.rows import RowSampling, SamplingMode, stack_sampling
from infer.sampling.truncation import truncated_logits

__all__ = [
    "GREEDY",
    "MAX_LOGIT_BIASES",
    "MAX_LOGPROBS",
    "NOTHING_ALLOWED",
    "NOT_FINITE",
    "Choice",
    "PromptLogprobs",
    "RowSampling",
    "SamplingMode",
    "SamplingParameters",
    "TokenCounts",
    "choose",
    "count_chosen",
    "count_rows",
    "full_mask",
    "mask_of",
    "num_words",
    "override_sampling",
    "prompt_logprobs",
    "sample",
    "stack_sampling",
    "truncated_logits",
]
