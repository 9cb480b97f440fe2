import json

from llama_jax.chat import Llama31Format, chat_format_hash
from llama_jax.chat.template import TemplateFormat


def test_every_choice_changes_it_and_the_place_does_not(llama_tokenizer, templates):
    source = templates["chatml"]
    formats = [
        Llama31Format(llama_tokenizer),
        Llama31Format(llama_tokenizer, tool_prompt_format="function_tag"),
        Llama31Format(llama_tokenizer, builtin_tools=("brave_search",)),
        Llama31Format(llama_tokenizer, today="1 Jan 2025"),
        Llama31Format(llama_tokenizer, python_tag_before_builtin_calls=True),
        TemplateFormat(source, llama_tokenizer),
        TemplateFormat(source + " ", llama_tokenizer),
        TemplateFormat({"default": source, "tool_use": source}, llama_tokenizer),
        TemplateFormat(source, llama_tokenizer, variables={"bos_token": "<|begin_of_text|>"}),
    ]
    hashes = [chat_format_hash(chat_format) for chat_format in formats]
    assert len(set(hashes)) == len(formats) and all(len(sha256) == 64 for sha256 in hashes)
    elsewhere = TemplateFormat(source, llama_tokenizer, place="elsewhere")
    assert chat_format_hash(elsewhere) == hashes[5]
    assert json.loads(json.dumps(elsewhere.definition())) == elsewhere.definition()
