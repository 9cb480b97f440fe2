"""What a call computed for a row becomes part of the row, and of what is told about it."""

from collections.abc import Sequence

from infer.engine.arguments import PrefillRows
from infer.engine.decode_rows import NO_TOKEN, Decoded
from infer.engine.request import Progress, TokenLogprob
from infer.engine.row import Row
from infer.sampling import NOT_FINITE, NOTHING_ALLOWED, PromptLogprobs

_ERRORS = {
    NOT_FINITE: "logits are not finite: the dtype overflows, or the weights are damaged",
    NOTHING_ALLOWED: "no token is allowed: masks and grammar leave nothing to choose",
}


def take_tokens(row: Row, index: int, num_known: int, decoded: Decoded) -> Progress | None:
    """Gives `row` its tokens and says what is new about it, if anything is.

    Args:
      index: of the row in `decoded`, numpy arrays.
      num_known: how many of its tokens it had before.
    """
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
    if row.constraint is not None and finish_reason is None:
        for token in new:
            row.constraint.accept(token)
        if row.constraint.is_finished:
            finish_reason = "stop"
    if finish_reason is None and len(row.answer) == request.max_new_tokens:
        finish_reason = "length"
    if not new and finish_reason is None:
        return None
    return Progress(
        row.request_id,
        tuple(new),
        tuple(logprobs),
        _untold_prompt_logprobs(row),
        finish_reason,
        stop_token,
        error,
    )


def take_prompt_logprobs(rows: Sequence[Row], chunk: PrefillRows, scored: PromptLogprobs) -> None:
    """Gives rows the log-probabilities of a chunk, whose last columns are their new ones. To be
    called before the rows have the chunk's tokens."""
    length = chunk.tokens.shape[1]
    for index, row in enumerate(rows):
        num_top = row.request.num_prompt_logprobs
        for column in range(length - int(chunk.rows.lengths[index]) + row.num_cached, length):
            top = zip(
                scored.top_ids[index, column, :num_top].tolist(),
                scored.top_logprobs[index, column, :num_top].tolist(),
                strict=True,
            )
            row.prompt_logprobs.append(
                TokenLogprob(
                    int(chunk.targets[index, column]),
                    float(scored.logprobs[index, column]),
                    tuple(top),
                )
            )


def _untold_prompt_logprobs(row: Row) -> tuple[TokenLogprob | None, ...] | None:
    """With the first progress of a row that asked for them."""
    if row.request.num_prompt_logprobs is None or row.told_prompt_logprobs:
        return None
    row.told_prompt_logprobs = True
    return tuple(row.prompt_logprobs)


def _token_logprob(index: int, place: int, decoded: Decoded, num_top: int) -> TokenLogprob:
    """Of the token of row `index` at `place`."""
    ids = decoded.top_ids[index, place, :num_top].tolist()
    logprobs = decoded.top_logprobs[index, place, :num_top].tolist()
    return TokenLogprob(
        int(decoded.tokens[index, place]),
        float(decoded.logprobs[index, place]),
        tuple(zip(ids, logprobs, strict=True)),
    )
