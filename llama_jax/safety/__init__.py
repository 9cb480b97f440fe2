"""Guards of what goes into a model and comes out of it: Llama Guard 3 and Prompt Guard.

Llama Guard is a Llama that is asked, in a fixed prompt, whether the last message of a dialog is
safe (`llama_guard.py`), and whose answer is a verdict (`verdict.py`). Prompt Guard is a DeBERTa-v2
encoder that classifies a text (`deberta_v2`, `prompt_guard.py`). Both are run by `infer/guard`.
"""

from llama_jax.safety.categories import LLAMA_GUARD_3, Category, read_categories
from llama_jax.safety.guard_policy import GuardPolicy
from llama_jax.safety.guard_turns import Turn, guard_turns
from llama_jax.safety.llama_guard import FORMS, LlamaGuard
from llama_jax.safety.verdict import Verdict, parse_verdict

__all__ = [
    "FORMS",
    "LLAMA_GUARD_3",
    "Category",
    "GuardPolicy",
    "LlamaGuard",
    "Turn",
    "Verdict",
    "guard_turns",
    "parse_verdict",
    "read_categories",
]
