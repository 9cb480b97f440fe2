"""Log-probabilities as each of OpenAI's two interfaces writes them, and as vLLM does a prompt's.

A token that is no whole characters is written as its bytes, `\\xf0\\x9f`; in the older interface,
which has no field for bytes, as `bytes:\\xf0\\x9f`. So does OpenAI.
"""

import codecs
from collections.abc import Iterable
from typing import Any

from infer.answers import LikelyToken, TextLogprob

# JSON has no minus infinity; this is what OpenAI and vLLM write.
_LEAST = -9999.0


def chat_logprobs(logprobs: Iterable[TextLogprob]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat response."""
    content = [
        {**_chat_token(chosen), "top_logprobs": [_chat_token(likely) for likely in chosen.top]}
        for chosen in logprobs
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(
    logprobs: Iterable[TextLogprob | None],
) -> list[dict[str, dict[str, Any]] | None]:
    """vLLM's `prompt_logprobs`: for each token but the first, id -> how likely it and the likeliest
    were. A rank is only known of those; vLLM ranks the token itself too."""
    return [None if chosen is None else _ranked(chosen) for chosen in logprobs]


class CompletionLogprobs:
    """`logprobs` of one choice of a completion, part by part.

    `text_offset` says where in the choice's text each token begins, in characters; a token that
    goes on with a character begins where that one does.
    """

    def __init__(self, textless_ids: frozenset[int]) -> None:
        """Args: ids that have no part in the text."""
        self._textless_ids = textless_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._has_text = False

    def part(
        self, text: str, logprobs: Iterable[TextLogprob], *, first: LikelyToken | None = None
    ) -> dict[str, Any]:
        """The lists for the next tokens.

        Args:
          text: theirs.
          first: a token before them that has no log-probability, as the first of a prompt.
        """
        lists: dict[str, list[Any]] = {
            name: [] for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")
        }
        if first is not None:
            self._append(lists, first, text)
            lists["token_logprobs"].append(None)
            lists["top_logprobs"].append(None)
        for chosen in logprobs:
            self._append(lists, chosen, text)
            lists["token_logprobs"].append(_finite(chosen.logprob))
            top: dict[str, float] = {}
            for likely in (*chosen.top, chosen):
                top.setdefault(_completion_text(likely), _finite(likely.logprob))
            lists["top_logprobs"].append(top)
        return lists

    def _append(self, lists: dict[str, list[Any]], token: LikelyToken, text: str) -> None:
        lists["tokens"].append(_completion_text(token))
        lists["text_offset"].append(max(0, self._offset))
        if token.token in self._textless_ids:
            return
        if not self._has_text and token.bytes.startswith(b" ") and not text.startswith(" "):
            # SentencePiece drops the space before the first word of a text.
            self._offset = -1
        self._has_text = True
        self._offset += len(self._decoder.decode(token.bytes))


def _chat_token(token: LikelyToken) -> dict[str, Any]:
    text = _whole_text(token)
    return {
        "token": _escaped(token.bytes) if text is None else text,
        "logprob": _finite(token.logprob),
        "bytes": list(token.bytes),
    }


def _completion_text(token: LikelyToken) -> str:
    text = _whole_text(token)
    return f"bytes:{_escaped(token.bytes)}" if text is None else text


def _whole_text(token: LikelyToken) -> str | None:
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return None


def _escaped(token_bytes: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token_bytes)


def _ranked(chosen: TextLogprob) -> dict[str, dict[str, Any]]:
    ranked = {}
    for rank, likely in enumerate(chosen.top, 1):
        ranked[str(likely.token)] = _ranked_token(likely, rank)
    ranked.setdefault(str(chosen.token), _ranked_token(chosen, None))
    return ranked


def _ranked_token(token: LikelyToken, rank: int | None) -> dict[str, Any]:
    return {"logprob": _finite(token.logprob), "rank": rank, "decoded_token": token.text}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
