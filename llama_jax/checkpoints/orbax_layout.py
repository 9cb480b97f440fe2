"""Names and numbers that both sides of our Orbax weights folder agree on."""

DESCRIPTION_FILE = "llama_jax.json"
WEIGHTS_FOLDER = "weights"
FORMAT_VERSION = 1
# Of a folder with quantised weights, which readers of version 1 would not understand.
QUANTIZED_VERSION = 2
# Where Orbax puts the leaves of an unnamed tree.
TREE_FOLDER = "state"
