"""A model to be asked, without weights: a vocabulary of bytes, a template that shows tools."""

import dataclasses

from infer.protocol import ServedModel
from infer.sampling import SamplingParameters
from llama_jax.chat.template import TemplateFormat

from ..answers.byte_tokenizer import byte_tokenizer

TEMPLATE = (
    "<bos>{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eot>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def served_model(template: str | None = TEMPLATE, **fields) -> ServedModel:
    tokenizer = byte_tokenizer()
    chat_format = None
    if template is not None:
        chat_format = TemplateFormat(template, tokenizer)
    model = ServedModel(
        names=("tiny", "tiny-again"),
        tokenizer=tokenizer,
        chat_format=chat_format,
        begins_with_bos=True,
        eos_ids=frozenset({tokenizer.special_tokens["<eot>"], tokenizer.special_tokens["<eom>"]}),
        sampling=SamplingParameters(temperature=0.6, top_p=0.9),
        max_length=400,
    )
    return dataclasses.replace(model, **fields)
