"""Which weight gets which format: the named recipes of `llama-jax quantize`.

Only the seven products of a block are ever quantised. Norms are a vector each, and an embedding or
a head that is off by a little is off at every token.

* `fp8` is what Meta serves Llama 3.1 405B with (arXiv 2407.21783, section 6.2): feed-forward
  products only, not those of the first and the last layer.
* `int8` is weight-only and takes all seven.
* `int4` is weight-only: the feed-forward, seven to eight tenths of a Llama, in 4 bits, and the
  attention in 8. Attention in 4 bits costs SmolLM2 as much perplexity as the feed-forward, and
  would save a tenth of the whole. Best rounded by a calibration text (`calibrated_int4.py`).
* `int8_int4` keeps `down` in 8 bits too, whose inputs are products of what gate and up produce: the
  mix with which 70B fits into 64 GB, which 8 bits for everything do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llama_jax.errors import InputError
from llama_jax.quantization.quantized_tensor import WeightFormat

RecipeName = Literal["fp8", "int8", "int4", "int8_int4"]

ATTENTION_PRODUCTS = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
)
FEED_FORWARD_PRODUCTS = ("feed_forward.gate", "feed_forward.up", "feed_forward.down")
PRODUCTS = ATTENTION_PRODUCTS + FEED_FORWARD_PRODUCTS


@dataclass(frozen=True)
class Recipe:
    """A format for each of a block's products that has one.

    Attributes:
      name: on the command line and in checkpoints.
      formats: product -> format; what is absent stays as it is.
      spares_edges: whether the first and the last layer stay as they are.
    """

    name: str
    formats: Mapping[str, WeightFormat]
    spares_edges: bool = False

    def format_of(self, name: str, num_layers: int) -> WeightFormat | None:
        """The format of the tensor `name`, such as `blocks.3.feed_forward.gate`, in a model of
        `num_layers`; None if it stays as it is."""
        room, _, rest = name.partition(".")
        if room != "blocks":
            return None
        layer, _, product = rest.partition(".")
        if self.spares_edges and int(layer) in (0, num_layers - 1):
            return None
        return self.formats.get(product)


_ATTENTION_IN_8 = dict.fromkeys(ATTENTION_PRODUCTS, WeightFormat.INT8)
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp8", dict.fromkeys(FEED_FORWARD_PRODUCTS, WeightFormat.FP8), spares_edges=True),
        Recipe("int8", dict.fromkeys(PRODUCTS, WeightFormat.INT8)),
        Recipe("int4", _ATTENTION_IN_8 | dict.fromkeys(FEED_FORWARD_PRODUCTS, WeightFormat.INT4)),
        Recipe(
            "int8_int4",
            _ATTENTION_IN_8
            | dict.fromkeys(("feed_forward.gate", "feed_forward.up"), WeightFormat.INT4)
            | {"feed_forward.down": WeightFormat.INT8},
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`. Raises `InputError` for any other name."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is not one of {', '.join(RECIPES)}")
    return RECIPES[name]
