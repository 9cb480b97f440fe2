"""What was computed, and how long the device would take for it at best.

A prompt costs its multiplications, at the rate of large products. A step of decoding costs its
multiplications, or the reading of all weights and of the keys and values that lie there, whichever
takes longer; and there are at least as many steps as fill all slots of the engine all the time,
or as the longest answer has. So empty slots count against us, as does all that the host does.
"""

import math
from dataclasses import dataclass

from infer.batch.part_file import FinishedRow
from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token


@dataclass(frozen=True)
class DevicePeaks:
    """Attributes:
    bytes, flops: a second, of all devices together.
    source: where the numbers are from.
    """

    bytes: float
    flops: float
    source: str

    def __str__(self) -> str:
        return f"{self.bytes / 1e9:,.0f} GB/s, {self.flops / 1e12:,.3g} TFLOP/s {self.source}"


@dataclass
class WorkDone:
    """Sums over rows, whose samples count as equally long.

    Attributes:
      rows, failed: finished, and those of them that failed.
      prompt_tokens, new_tokens: of all rows.
      prompt_keys: sum over prompt tokens of the tokens that they attend to.
      new_keys: the same of new tokens.
      longest: new tokens of the longest sample.
    """

    rows: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    prompt_keys: float = 0.0
    new_keys: float = 0.0
    longest: int = 0

    def add(self, row: FinishedRow) -> None:
        """Counts one row more."""
        self.rows += 1
        self.failed += row.kind == "error"
        self.prompt_tokens += row.prompt_tokens
        self.new_tokens += row.new_tokens
        each = row.new_tokens / row.samples
        self.prompt_keys += row.prompt_tokens * (row.prompt_tokens + 1) / 2
        self.new_keys += row.new_tokens * (row.prompt_tokens + (each + 1) / 2)
        self.longest = max(self.longest, math.ceil(each))

    def seconds_at_peak(
        self,
        config: ModelConfig,
        peaks: DevicePeaks,
        *,
        weight_bytes: int,
        bytes_per_key: float,
        slots: int,
        share_of_prompts: float,
    ) -> float:
        """The least time that a device with `peaks` takes.

        Args:
          weight_bytes: of all weights, as they are stored.
          bytes_per_key: of one token in the cache, all layers together.
          slots: rows that the engine answers at once.
          share_of_prompts: of the prompts' tokens, those that were computed; the others were in
            the cache already.
        """
        layers = 4 * config.num_layers * config.num_heads * config.head_dim
        a_token = forward_flops_per_token(config, 0)
        head = 2 * config.vocab_size * config.model_dim
        # No prompt token needs the head, and the last of each is a step of decoding.
        prompts = self.prompt_tokens * (a_token - head) + layers * self.prompt_keys
        answers = self.new_tokens * a_token + layers * self.new_keys
        steps = max(self.longest, self.new_tokens / slots)
        read = steps * weight_bytes + self.new_keys * bytes_per_key
        return share_of_prompts * prompts / peaks.flops + max(
            answers / peaks.flops, read / peaks.bytes
        )
