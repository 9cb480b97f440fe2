"""An engine that plays back ids: `Engine`'s contract without a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from infer.engine.request import Progress, Request, TokenLogprob
from llama_jax.errors import InputError


@dataclass
class _Row:
    id: int
    request: Request
    script: list[int]
    position: int = 0


class ScriptedEngine:
    """Row i plays `scripts[i]`, `tokens_per_step` ids a step, and obeys its request's limits.

    A script that runs out ends in an error, so a test's script must stop in some other way.
    """

    def __init__(self, scripts: Sequence[Sequence[int]], *, tokens_per_step: int = 3) -> None:
        self.requests: list[Request] = []
        self.cancelled: list[int] = []
        self._scripts = [list(script) for script in scripts]
        self._rows: dict[int, _Row] = {}
        self._tokens_per_step = tokens_per_step

    @property
    def is_idle(self) -> bool:
        return not self._rows

    def add(self, request: Request) -> int:
        number = len(self.requests)
        if number >= len(self._scripts):
            raise InputError("the prompt needs more pages than there are")
        self.requests.append(request)
        self._rows[number] = _Row(number, request, self._scripts[number])
        return number

    def cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)
        self._rows.pop(request_id, None)

    def step(self) -> list[Progress]:
        return [self._advance(row) for row in list(self._rows.values())]

    def _advance(self, row: _Row) -> Progress:
        request, is_first = row.request, row.position == 0
        tokens: list[int] = []
        finish, stop_token, error = None, None, None
        for _ in range(self._tokens_per_step):
            if row.position == len(row.script):
                finish, error = "error", "the logits are not finite"
                break
            token = row.script[row.position]
            row.position += 1
            if token in request.stop_ids:
                finish, stop_token = "stop", token
                break
            tokens.append(token)
            if row.position == request.max_new_tokens:
                finish = "length"
                break
        if finish is not None:
            del self._rows[row.id]
        logprobs, prompt_logprobs = (), None
        if request.num_logprobs is not None:
            logprobs = tuple(scripted_logprob(token, request.num_logprobs) for token in tokens)
        if request.num_prompt_logprobs is not None and is_first and error is None:
            count = request.num_prompt_logprobs
            rest = (scripted_logprob(token, count) for token in request.prompt[1:])
            prompt_logprobs = (None, *rest)
        return Progress(row.id, tuple(tokens), logprobs, prompt_logprobs, finish, stop_token, error)


def scripted_logprob(token: int, count: int) -> TokenLogprob:
    """Some numbers that depend on the id."""
    top = tuple(((token + i) % 200, -0.01 * token - i) for i in range(count))
    return TokenLogprob(token, -0.01 * token, top)
