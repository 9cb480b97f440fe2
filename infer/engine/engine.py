"""The engine: rows in, tokens out, until nobody waits.

One `step` admits rows, computes chunks of prompts, decodes a few tokens of every row that is ready,
and says what came of it. What a row gets depends on its request alone: every product has the same
shape whoever else is there, attention walks each row's own pages, random numbers are counted by the
row's seed and position, and what is computed again is computed by the same programs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from infer.engine.decode_arguments import decode_rows
from infer.engine.decode_rows import NO_TOKEN, Decoded
from infer.engine.executables import Executables, PrefillKey, empty_rows
from infer.engine.request import Progress, Request, TokenLogprob
from infer.engine.row import Row, mode_of
from infer.engine.scheduler import Scheduler
from infer.engine.settings import EngineSettings
from infer.engine.weights import Weights, empty_pools
from infer.sampling import NOT_FINITE, NOTHING_ALLOWED, PromptLogprobs
from llama_jax.config import ModelConfig
from llama_jax.errors import InputError
from llama_jax.kernels.select import inference_operators
from llama_jax.model import Operators, Params
from sharding.sharded_operators import shard_paged_operators

_ERRORS = {
    NOT_FINITE: "logits are not finite: the dtype overflows, or the weights are damaged",
    NOTHING_ALLOWED: "no token is allowed: masks and grammar leave nothing to choose",
}


@dataclass(frozen=True)
class EngineUsage:
    """How busy an engine is, and what it has done so far.

    Attributes:
      waiting, running: rows.
      pages_used: that rows hold.
      pages_kept: that nobody holds, with the beginning of a prompt that may come again.
      num_pages: that there are.
      preemptions: how often a row lost its pages.
      shared_tokens: of prompts, found in pages that were there already.
      prompt_tokens: of prompts, computed.
      new_tokens: of answers; those computed again do not count.
      decode_steps: steps of all rows together.
    """

    waiting: int
    running: int
    pages_used: int
    pages_kept: int
    num_pages: int
    preemptions: int
    shared_tokens: int
    prompt_tokens: int
    new_tokens: int
    decode_steps: int


class Engine:
    """Answers requests, many at once. Not for several threads."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        settings: EngineSettings,
        *,
        draft_params: Params | None = None,
        vocab_size: int | None = None,
        prefill_operators: Operators | None = None,
        decode_operators: Operators | None = None,
        mesh: Mesh | None = None,
    ):
        """
        Args:
          params: weights with unstacked blocks, see `llama_jax.unstack_blocks`; on a mesh, lying as
            the serving rules say.
          draft_params: of the model of `settings.speculation.draft_config`, likewise.
          vocab_size: only ids under it are chosen, such as the tokenizer's; by default the model's.
          prefill_operators, decode_operators: of one device, by default of this machine's.
          mesh: the devices, see `sharding/serving_mesh.py`. Each process of a pod makes the same
            calls in the same order, and is told the same.

        Raises:
          InputError: the model's context is shorter than `settings.max_length`.
        """
        if settings.max_length > config.context_length:
            raise InputError(
                f"max_length {settings.max_length} is over the model's context of "
                f"{config.context_length}: lower it"
            )
        self.config = config
        self._weights = Weights(params, draft_params)
        self.settings = settings
        self.vocab_size = vocab_size or config.vocab_size
        self._scheduler = Scheduler(settings)
        self._pools = empty_pools(config, settings, params["embedding"].dtype, mesh)
        here = jax.local_devices()[0]
        operators = inference_operators(here.platform, here.device_kind)
        of_prompts = prefill_operators or operators[0]
        of_decoding = decode_operators or operators[1]
        if mesh is not None:
            of_prompts = shard_paged_operators(of_prompts, mesh)
            of_decoding = shard_paged_operators(of_decoding, mesh)
        self._executables = Executables(
            config,
            self._weights,
            self._pools,
            settings=settings,
            vocab_size=self.vocab_size,
            prefill_operators=of_prompts,
            decode_operators=of_decoding,
            mesh=mesh,
        )
        self._rows: dict[int, Row] = {}
        self._next_id = 0
        self._progress: list[Progress] = []
        self._num_prompt_tokens = self._num_new_tokens = self._num_steps = 0

    def compile(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Compiles every program there is, before the first `step`: see `Executables.compile`."""
        self._executables.compile(say)

    def add(self, request: Request) -> int:
        """Puts a request in line and returns its id, by which `step` speaks of it.

        Raises:
          InputError: it could never be answered: an id outside the vocabulary, longer than a row or
            than all pages, or in need of a program that is not among the engine's.
        """
        self._check(request)
        request_id, self._next_id = self._next_id, self._next_id + 1
        row = Row(
            request_id, request, mode_of(request), request.constraint and request.constraint()
        )
        self._rows[request_id] = row
        self._scheduler.add(row)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Forgets a request, if it is not over; nothing more will be said of it."""
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._scheduler.remove(row)

    @property
    def is_idle(self) -> bool:
        """Whether every request is over."""
        return not self._rows

    def usage(self) -> EngineUsage:
        """How busy it is."""
        scheduler, pool = self._scheduler, self._scheduler.pool
        return EngineUsage(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            pages_used=pool.num_used,
            pages_kept=pool.num_kept,
            num_pages=pool.num_pages,
            preemptions=scheduler.num_preemptions,
            shared_tokens=scheduler.num_shared_tokens,
            prompt_tokens=self._num_prompt_tokens,
            new_tokens=self._num_new_tokens,
            decode_steps=self._num_steps,
        )

    def step(self) -> list[Progress]:
        """Computes some prompts and some tokens; what is new, in order of the requests' ids."""
        self._progress = []
        for _ in range(self.settings.prefill_calls):
            self._scheduler.admit()
            if not self._prefill():
                break
        self._decode()
        return sorted(self._progress, key=lambda progress: progress.request_id)

    def _prefill(self) -> bool:
        """One chunk of as many prompts as fit; False if no prompt is left to compute."""
        rows = self._scheduler.prefilling()
        if not rows:
            return False
        # Those of one length of chunk, and of one kind, go together with the first in line.
        key = self._prefill_key(rows[0])
        length = key.length
        rows = [row for row in rows if self._prefill_key(row) == key]
        rows = rows[: self.settings.prefill_tokens // length]
        places = empty_rows(self.settings.prefill_tokens // length, self.settings)
        tokens = np.zeros((len(places.lengths), length), np.int32)
        targets = np.full_like(tokens, NO_TOKEN)
        ends = []
        for index, row in enumerate(rows):
            prompt = row.request.prompt
            end = row.num_cached + min(length, row.num_to_prefill)
            places.page_table[index, : len(row.pages)] = row.pages
            places.lengths[index] = end
            places.first_new[index] = row.num_cached
            first = max(0, end - length)
            tokens[index, first - end :] = prompt[first:end]
            targets[index, first - end :] = prompt[first + 1 : end + 1]
            ends.append(end)
        if key.scored:
            scored, self._pools = self._executables(
                key, self._weights, self._pools, tokens, places, targets
            )
            self._note_prompt_logprobs(rows, ends, targets, jax.tree.map(np.asarray, scored))
        else:
            self._pools = self._executables(key, self._weights, self._pools, tokens, places)
        for row, end in zip(rows, ends, strict=True):
            self._num_prompt_tokens += end - row.num_cached
            row.num_cached = end
            self._scheduler.name_pages(row)
        return True

    def _prefill_key(self, row: Row) -> PrefillKey:
        length = self.settings.chunk_length(row.num_to_prefill)
        return PrefillKey(length, row.wants_prompt_logprobs)

    def _decode(self) -> None:
        """A few tokens of every row whose prompt is computed."""
        settings = self.settings
        rows = self._scheduler.decoding()
        if not rows:
            return
        # The host has to see each token of a grammar's row before it knows the next mask.
        key = self._executables.decode_key(
            len(rows),
            [row.mode for row in rows],
            token_by_token=any(row.constraint for row in rows),
        )
        arguments = decode_rows(rows, key, settings, self.vocab_size)
        num_known = np.sum(arguments.forced >= 0, axis=1).tolist()
        num_steps = min(
            (known or 1) if row.constraint else settings.decode_steps
            for row, known in zip(rows, num_known, strict=False)
        )
        # Where others wait, a call ends when an eighth of the rows has.
        least_rows = len(rows) - len(rows) // 8 if self._scheduler.waiting else 1
        decoded, self._pools = self._executables(
            key,
            self._weights,
            self._pools,
            arguments,
            np.int32(num_steps),
            np.int32(least_rows),
        )
        decoded = jax.tree.map(np.asarray, decoded)
        self._num_steps += int(decoded.num_steps)
        for index, row in enumerate(rows):
            self._note_tokens(row, index, num_known[index], decoded)

    def _note_tokens(self, row: Row, index: int, num_known: int, decoded: Decoded) -> None:
        """Takes over what a call computed for `row`, of which the first tokens were known."""
        request = row.request
        tokens = decoded.tokens[index]
        tokens = tokens[tokens != NO_TOKEN].tolist()
        row.num_cached += len(tokens)
        new, logprobs = [], []
        finish_reason = stop_token = error = None
        for place, token in enumerate(tokens[num_known:], num_known):
            if token < 0:
                finish_reason, error = "error", _ERRORS[token]
            elif token in request.stop_ids:
                finish_reason, stop_token = "stop", token
            else:
                new.append(token)
                if request.num_logprobs is not None:
                    logprobs.append(_token_logprob(index, place, decoded, request.num_logprobs))
        row.answer.extend(new)
        self._num_new_tokens += len(new)
        if row.constraint is not None and finish_reason is None:
            for token in new:
                row.constraint.accept(token)
            if row.constraint.is_finished:
                finish_reason = "stop"
        if finish_reason is None and len(row.answer) == request.max_new_tokens:
            finish_reason = "length"
        if not new and finish_reason is None:
            return
        self._progress.append(
            Progress(
                row.request_id,
                tuple(new),
                tuple(logprobs),
                self._prompt_logprobs_of(row),
                finish_reason,
                stop_token,
                error,
            )
        )
        if finish_reason is not None:
            self._scheduler.remove(self._rows.pop(row.request_id))

    def _prompt_logprobs_of(self, row: Row) -> tuple[TokenLogprob | None, ...] | None:
        """With the first progress of a row that asked for them."""
        if row.request.num_prompt_logprobs is None or row.told_prompt_logprobs:
            return None
        row.told_prompt_logprobs = True
        return tuple(row.prompt_logprobs)

    def _note_prompt_logprobs(
        self, rows: list[Row], ends: list[int], targets: np.ndarray, scored: PromptLogprobs
    ) -> None:
        """Takes over the log-probabilities of a chunk; a row's last columns are its new ones."""
        for index, (row, end) in enumerate(zip(rows, ends, strict=True)):
            num_top = row.request.num_prompt_logprobs
            for column in range(targets.shape[1] - (end - row.num_cached), targets.shape[1]):
                top = zip(
                    scored.top_ids[index, column, :num_top].tolist(),
                    scored.top_logprobs[index, column, :num_top].tolist(),
                    strict=True,
                )
                row.prompt_logprobs.append(
                    TokenLogprob(
                        int(targets[index, column]),
                        float(scored.logprobs[index, column]),
                        tuple(top),
                    )
                )

    def _check(self, request: Request) -> None:
        """Raises `InputError` for what could never be answered."""
        settings = self.settings
        if not 0 <= min(request.prompt) <= max(request.prompt) < self.config.vocab_size:
            raise InputError(
                f"the prompt has an id outside the vocabulary of {self.config.vocab_size}: is the "
                "tokenizer of another model?"
            )
        # Guesses are written too, behind the last token.
        most_tokens = settings.max_length - settings.num_drafts
        num_tokens = len(request.prompt) + request.max_new_tokens
        if num_tokens > most_tokens:
            raise InputError(
                f"the prompt has {len(request.prompt)} tokens and asks for "
                f"{request.max_new_tokens} new ones, over the {most_tokens} that a row may "
                "have: shorten it or ask for fewer"
            )
        num_pages = settings.pages_for(num_tokens + settings.num_drafts)
        if num_pages > settings.num_pages:
            raise InputError(
                f"{num_tokens} tokens take {num_pages} pages, and there are {settings.num_pages}: "
                "ask for fewer tokens, or give the engine more memory"
            )
        if len(request.stop_ids) > settings.max_stop_ids:
            raise InputError(
                f"{len(request.stop_ids)} stop ids, and the most is {settings.max_stop_ids}"
            )
        if request.num_prompt_logprobs is not None and not settings.prompt_logprobs:
            raise InputError("log-probabilities of prompts are not among the engine's programs")
        self._executables.decode_key(1, [mode_of(request)], token_by_token=False)


def _token_logprob(index: int, place: int, decoded: Decoded, num_top: int) -> TokenLogprob:
    """Of the token of row `index` at `place`."""
    ids = decoded.top_ids[index, place, :num_top].tolist()
    logprobs = decoded.top_logprobs[index, place, :num_top].tolist()
    return TokenLogprob(
        int(decoded.tokens[index, place]),
        float(decoded.logprobs[index, place]),
        tuple(zip(ids, logprobs, strict=True)),
    )
