"""Log-probabilities of ids made readable: with each token's text and bytes."""

from infer.answers.answer_delta import LikelyToken, TextLogprob
from infer.engine.request import TokenLogprob
from llama_jax.tokenizers.interface import Tokenizer
from llama_jax.tokenizers.token_bytes import TokenBytes


class TokenTexts:
    """Texts of single tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = TokenBytes(tokenizer)

    def readable(self, logprob: TokenLogprob) -> TextLogprob:
        """`logprob` with texts and bytes."""
        chosen = self._likely_token(logprob.token, logprob.logprob)
        top = tuple(self._likely_token(token, value) for token, value in logprob.top)
        return TextLogprob(chosen.token, chosen.text, chosen.bytes, chosen.logprob, top)

    def _likely_token(self, token: int, logprob: float) -> LikelyToken:
        token_bytes = self._token_bytes.of(token)
        return LikelyToken(token, token_bytes.decode(errors="replace"), token_bytes, logprob)
