"""A request while the engine has it: what it has so far, and where."""

import dataclasses
from dataclasses import dataclass, field

from infer.engine.request import Constraint, Request, TokenLogprob
from infer.sampling import SamplingMode, stack_sampling


@dataclass(eq=False)
class Row:
    """Attributes:
    request_id: also its place in line: lower ones came earlier.
    request: what was asked.
    mode: the least that it needs computed.
    constraint: the state of its grammar.
    answer: ids so far, a stop id not among them.
    pages: in order; those at the front may be shared.
    num_named: how many of the first pages others can find.
    num_cached: tokens in the pages.
    prompt_logprobs: of its prompt, as far as computed; None for its first token.
    told_prompt_logprobs: whether they have been told.
    """

    request_id: int
    request: Request
    mode: SamplingMode
    constraint: Constraint | None
    answer: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    num_named: int = 0
    num_cached: int = 0
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=lambda: [None])
    told_prompt_logprobs: bool = False

    @property
    def num_to_prefill(self) -> int:
        """Tokens of the prompt that are not in the pages; its last is left to decoding."""
        return max(0, len(self.request.prompt) - 1 - self.num_cached)

    @property
    def num_decoded(self) -> int:
        """Tokens of the answer that are computed with its present pages."""
        return self.num_cached - (len(self.request.prompt) - 1)

    @property
    def num_steps_left(self) -> int:
        """Steps of decoding until the limit, those that repeat known tokens included."""
        return self.request.max_new_tokens - self.num_decoded

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of its prompt are still to be computed."""
        asked = self.request.num_prompt_logprobs is not None
        return asked and len(self.prompt_logprobs) < len(self.request.prompt)

    def token(self, position: int) -> int:
        """The id at `position` of prompt and answer."""
        num_prompt = len(self.request.prompt)
        if position < num_prompt:
            return self.request.prompt[position]
        return self.answer[position - num_prompt]


def mode_of(request: Request) -> SamplingMode:
    """The least sampling mode that serves `request`."""
    mode = stack_sampling([request.sampling])[1]
    return dataclasses.replace(
        mode,
        mask=mode.mask or request.constraint is not None,
        num_logprobs=request.num_logprobs,
    )
