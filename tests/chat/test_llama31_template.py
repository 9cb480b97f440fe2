"""The template for converted Llama 3.1 checkpoints, against what the published one is known to
write (written out by hand here), in transformers' renderer and in ours."""

import pytest

from llama_jax.chat import LLAMA_31_TEMPLATE
from llama_jax.chat.message_dicts import messages_from_dicts
from llama_jax.chat.template import TemplateFormat
from llama_jax.errors import InputError

BEGIN = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
END = "<|eot_id|>"
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "d'é<"}}
TOOL_TEXT = """{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "d'é<"
    }
}

"""
IN_USER = (
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and '
    "its value}.Do not use variables.\n\n"
)
IN_SYSTEM = (
    "You have access to the following functions. To call a function, please respond with JSON for "
    'a function call.Respond in the format {"name": function name, "parameters": dictionary of '
    "argument name and its value}.Do not use variables.\n\n"
)


def header(role):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def call(name, arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


SYSTEM = {"role": "system", "content": " Be brief.\n"}
USER = {"role": "user", "content": "  Hi \n"}
ASSISTANT = {"role": "assistant", "content": " Yes. "}
RESULT = {"role": "tool", "content": '22 "C" é'}

CASES = [
    ([USER], None, {}, BEGIN + DATES + END + header("user") + "Hi" + END + header("assistant")),
    (
        [SYSTEM, USER, ASSISTANT, USER],
        None,
        {"date_string": "1 Jan 2025"},
        BEGIN
        + DATES.replace("26 Jul 2024", "1 Jan 2025")
        + "Be brief."
        + END
        + (header("user") + "Hi" + END)
        + (header("assistant") + "Yes." + END)
        + (header("user") + "Hi" + END)
        + header("assistant"),
    ),
    (
        [SYSTEM, USER, call("get_weather", {"city": "Köln"}), RESULT],
        [TOOL],
        {},
        BEGIN
        + ("Environment: ipython\n" + DATES + "Be brief." + END)
        + (header("user") + IN_USER + TOOL_TEXT + "Hi" + END)
        + (header("assistant") + '{"name": "get_weather", "parameters": {"city": "Köln"}}' + END)
        + (header("ipython") + '"22 \\"C\\" é"' + END)
        + header("assistant"),
    ),
    (
        [USER],
        [TOOL, TOOL],
        {"tools_in_user_message": False},
        BEGIN
        + ("Environment: ipython\n" + DATES + IN_SYSTEM + TOOL_TEXT + TOOL_TEXT + END)
        + (header("user") + "Hi" + END + header("assistant")),
    ),
    (
        [USER, call("brave_search", {"query": "gold"})],
        None,
        {"builtin_tools": ["brave_search", "code_interpreter", "wolfram_alpha"]},
        BEGIN
        + "Environment: ipython\nTools: brave_search, wolfram_alpha\n\n"
        + (DATES + END + header("user") + "Hi" + END + header("assistant"))
        + '<|python_tag|>brave_search.call(query="gold")<|eom_id|>'
        + header("assistant"),
    ),
]


@pytest.mark.parametrize(("dialog", "tools", "options", "expected"), CASES)
def test_text(llama_tokenizer, dialog, tools, options, expected):
    variables = {"bos_token": "<|begin_of_text|>", **options}
    ours = TemplateFormat(LLAMA_31_TEMPLATE, llama_tokenizer, variables=variables)
    messages = messages_from_dicts(dialog)
    assert ours.render(messages, tools=tools, add_generation_prompt=True) == expected
    tokens = ours.encode_prompt(messages, tools=tools)
    assert tokens == llama_tokenizer.encode(expected, allow_special=True)


@pytest.mark.parametrize(("dialog", "tools", "options", "expected"), CASES)
def test_text_in_transformers(dialog, tools, options, expected):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, _ = utils.render_jinja_template(
        [dialog],
        tools=tools,
        chat_template=LLAMA_31_TEMPLATE,
        add_generation_prompt=True,
        bos_token="<|begin_of_text|>",
        **options,
    )
    assert rendered == [expected]


def test_loss_mask(llama_tokenizer):
    variables = {"bos_token": "<|begin_of_text|>"}
    ours = TemplateFormat(LLAMA_31_TEMPLATE, llama_tokenizer, variables=variables)
    dialog = [SYSTEM, USER, call("get_weather", {"city": "Köln"}), RESULT, ASSISTANT]
    formatted = ours.format_dialog(
        messages_from_dicts(dialog), tools=[TOOL], add_generation_prompt=False
    )
    learned = [
        token for token, mask in zip(formatted.tokens, formatted.loss_mask, strict=True) if mask
    ]
    assert llama_tokenizer.decode(learned) == (
        '{"name": "get_weather", "parameters": {"city": "Köln"}}<|eot_id|>Yes.<|eot_id|>'
    )


def test_refusals(llama_tokenizer):
    ours = TemplateFormat(LLAMA_31_TEMPLATE, llama_tokenizer, variables={"bos_token": ""})
    with pytest.raises(InputError, match="there is none"):
        ours.encode_prompt(messages_from_dicts([SYSTEM]), tools=[TOOL])
    two = call("f", {})
    two["tool_calls"] *= 2
    with pytest.raises(InputError, match="one tool call"):
        ours.encode_prompt(messages_from_dicts([USER, two]))
