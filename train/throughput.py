"""Tokens a second, and which share of the accelerators' peak they are (model FLOP utilisation).

Two conventions are in use, and both are given:

    mfu_causal  a query is counted with the keys that a causal row lets it see, (T + 1) / 2 of a row
                of T tokens on average. Packed documents see fewer still, so that it is a little
                over what the attention really computes.
    mfu_full    a query is counted with all T keys, as most published figures are (PaLM,
                arXiv 2204.02311, appendix B).

Forward and backward are three forward passes; recomputation for the backward pass counts nothing.
"""

import jax

from llama_jax.accelerators import accelerator
from llama_jax.config import ModelConfig
from llama_jax.costs import forward_flops_per_token


def missing_figures(device: jax.Device) -> str | None:
    """Why there will be no MFU on such devices; None if there will be."""
    kind = device.device_kind
    return None if accelerator(kind) else f"no MFU figures: the peak of {kind!r} is not known"


class Throughput:
    """Rates of one model at one row length on the devices of a job."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        row_length: int,
        devices: list[jax.Device] | None = None,
    ):
        """Args:
        config: of the model.
        row_length: tokens that a row predicts (T).
        devices: of the whole job, `jax.devices()` if None; all of one kind.
        """
        devices = jax.devices() if devices is None else devices
        self._num_devices = len(devices)
        known = accelerator(devices[0].device_kind)
        self.peak_flops = known.bf16_flops if known else None
        self._flops_per_token = {
            "mfu_causal": 3 * forward_flops_per_token(config, (row_length + 1) / 2),
            "mfu_full": 3 * forward_flops_per_token(config, row_length),
        }

    def values(self, num_tokens: float, seconds: float) -> dict[str, float]:
        """`tokens_per_second`, `tokens_per_second_per_device`, and, where the peak is known,
        `mfu_causal` and `mfu_full` (0 to 1, against the bfloat16 peak).

        Args:
          num_tokens: rows times row length, trained on by all devices together.
          seconds: it took.
        """
        rate = num_tokens / seconds
        each = rate / self._num_devices
        values = {"tokens_per_second": rate, "tokens_per_second_per_device": each}
        if self.peak_flops is not None:
            for name, flops in self._flops_per_token.items():
                values[name] = each * flops / self.peak_flops
        return values
