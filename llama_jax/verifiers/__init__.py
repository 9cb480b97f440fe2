"""Whether an answer is right, where a program can tell.

A question says in its `metadata` how it is verified, so a file may mix them:

    {"verifier": "exact", "answer": "Paris"}
    {"verifier": "number", "answer": "1,250"}
    {"verifier": "reasoning-gym", "task": "chain_sum", "seed": 7, "size": 100, "index": 3,
     "config": {"max_terms": 2}}
    {"verifier": "ifeval", "prompt": "...", "instruction_id_list": ["punctuation:no_comma"],
     "kwargs": [{}]}
"""

from llama_jax.verifiers.final_answer import final_answer
from llama_jax.verifiers.final_number import final_number
from llama_jax.verifiers.reasoning_gym_task import ReasoningGymTask
from llama_jax.verifiers.verifier import Verifier, is_verifier, verifier_of

__all__ = [
    "ReasoningGymTask",
    "Verifier",
    "final_answer",
    "final_number",
    "is_verifier",
    "verifier_of",
]
