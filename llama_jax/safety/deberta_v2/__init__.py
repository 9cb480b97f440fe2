"""DeBERTa-v2 and -v3 (arXiv 2006.03654, 2111.09543) for the classification of texts.

    config, params = load_classifier(folder)
    scores = classify(params, tokens, mask, config=config)

Attention knows what two tokens say and how far they are apart by separate vectors ("disentangled"):
content to content, content to position, position to content. Prompt Guard is one of these.
"""

from llama_jax.safety.deberta_v2.checkpoint import load_classifier
from llama_jax.safety.deberta_v2.classifier import abstract_params, classify, init_params
from llama_jax.safety.deberta_v2.config import DebertaConfig

__all__ = ["DebertaConfig", "abstract_params", "classify", "init_params", "load_classifier"]
