"""Names and numbers that both sides of our Orbax weights folder agree on."""

import ml_dtypes
import numpy as np

DESCRIPTION_FILE = "llama_jax.json"
WEIGHTS_FOLDER = "weights"
GENERATION_FILE = "generation_config.json"
FORMAT_VERSION = 1
# Where Orbax puts the leaves of an unnamed tree.
TREE_FOLDER = "state"
DTYPES = {
    dtype.name: dtype for dtype in map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16))
}
