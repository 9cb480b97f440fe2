"""What counts of a dialog, written down by hand token by token."""

import json
import shutil

from llama_jax.chat import LLAMA_31_TEMPLATE
from llama_jax.tokenizers import load_tokenizer

from .lines import assistant, call, definition, maker, system, tool, user


def said(*texts):
    return [(text, True) for text in texts]


def heard(*texts):
    return [(text, False) for text in texts]


def header(*role):
    return heard("<|start_header_id|>", *role, "<|end_header_id|>", "\n\n")


def labelled(tokenizer, line, **options):
    """Each token's text, and whether it counts as a target."""
    example = maker(tokenizer, "dialogs", **options)(line)
    loaded = load_tokenizer(tokenizer)
    assert list(example.starts) == [0] and not len(example.answers)
    texts = [loaded.decode([int(token)]) for token in example.tokens]
    return list(zip(texts, example.masks[0].tolist(), strict=True))


def test_every_turn_of_the_assistant_counts_with_its_end_in_llama_31s_format(meta):
    line = {
        "messages": [
            system("Be brief."),
            user("2+2?"),
            assistant("4."),
            user("And 3+3?"),
            assistant("Six.\n\nEasy."),
        ]
    }
    assert labelled(meta / "tokenizer.model", line) == [
        *heard("<|begin_of_text|>"),
        *header("system"),
        *heard("Be", " brief", ".", "<|eot_id|>"),
        *header("user"),
        *heard("2", "+", "2", "?", "<|eot_id|>"),
        *header("assistant"),
        *said("4", ".", "<|eot_id|>"),
        *header("user"),
        *heard("And", " ", "3", "+", "3", "?", "<|eot_id|>"),
        *header("assistant"),
        *said("Six", ".\n\n", "Easy", ".", "<|eot_id|>"),
    ]


def test_a_python_tag_and_the_end_of_a_message_count(meta):
    line = {
        "messages": [
            user("Run it"),
            assistant(None, tool_calls=[call("code_interpreter", code="print(7)")]),
            tool("7"),
            assistant("It is 7."),
        ]
    }
    assert labelled(meta / "tokenizer.model", line) == [
        *heard("<|begin_of_text|>"),
        *header("user"),
        *heard("Run", " it", "<|eot_id|>"),
        *header("assistant"),
        *said("<|python_tag|>", "print", "(", "7", ")", "<|eom_id|>"),
        *header("ipy", "thon"),
        *heard("7", "<|eot_id|>"),
        *header("assistant"),
        *said("It", " is", " ", "7", ".", "<|eot_id|>"),
    ]


def test_a_tool_call_counts_and_the_tools_and_their_answers_do_not(meta):
    line = {
        "messages": [
            user("Weather?"),
            assistant(None, tool_calls=[call("get_weather", "c1", city="Rome")]),
            tool("sunny", tool_call_id="c1"),
            assistant("Sunny."),
        ],
        "tools": [definition("get_weather")],
    }
    tokens = labelled(meta / "tokenizer.model", line)
    weather = [text for text, _ in tokens].index("Weather")
    assert not any(counts for _, counts in tokens[:weather])
    assert "get" in {text for text, _ in tokens[:weather]}  # the tools were told of
    assert tokens[weather:] == [
        *heard("Weather", "?", "<|eot_id|>"),
        *header("assistant"),
        *said('{"', "type", '":', ' "', "function", '",', ' "', "name", '":', ' "', "get"),
        *said("_weather", '",', ' "', "parameters", '":', ' {"', "city", '":', ' "', "R", "ome"),
        *said('"}}', "<|eot_id|>"),
        *header("ipy", "thon"),
        *heard("s", "unny", "<|eot_id|>"),
        *header("assistant"),
        *said("S", "unny", ".", "<|eot_id|>"),
    ]


def test_special_tokens_that_are_written_in_a_message_are_text(meta):
    line = {"messages": [user("Hi <|eot_id|>"), assistant("No <|eot_id|> here")]}
    assert labelled(meta / "tokenizer.model", line) == [
        *heard("<|begin_of_text|>"),
        *header("user"),
        *heard("Hi", " <|", "e", "ot", "_id", "|", ">", "<|eot_id|>"),
        *header("assistant"),
        *said("No", " <|", "e", "ot", "_id", "|", ">", " here", "<|eot_id|>"),
    ]


def test_every_turn_counts_in_smollm2s_chat_template(chatml):
    line = {
        "conversations": [
            {"from": "human", "value": "be"},
            {"from": "gpt", "value": "To the"},
            {"from": "human", "value": "the"},
            {"from": "gpt", "value": "be"},
        ]
    }
    tokens = labelled(chatml, line)
    text = "".join(text for text, _ in tokens)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
        "<|im_start|>user\nbe<|im_end|>\n<|im_start|>assistant\nTo the<|im_end|>\n"
        "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\nbe<|im_end|>\n"
    )
    system_end = [text for text, _ in tokens].index("<|im_end|>")
    assert not any(counts for _, counts in tokens[:system_end])
    a = ["a", "s", "s", "i", "st", "a", "n", "t", "\n"]
    assert tokens[system_end:] == [
        *heard("<|im_end|>", "\n"),
        *heard("<|im_start|>", "u", "s", "er", "\n", "be", "<|im_end|>", "\n"),
        *heard("<|im_start|>", *a),
        *said("To", " the", "<|im_end|>"),
        *heard("\n", "<|im_start|>", "u", "s", "er", "\n", "the", "<|im_end|>", "\n"),
        *heard("<|im_start|>", *a),
        *said("be", "<|im_end|>"),
        *heard("\n"),
    ]


def test_llama_31s_format_with_a_small_tokenizer(llama):
    line = {"messages": [user("be"), assistant("the be"), user("be"), assistant("the")]}
    tokens = labelled(llama, line, chat_format="llama31")
    a = ["a", "s", "s", "i", "st", "a", "n", "t"]
    new_line = ["\n", "\n"]
    assert tokens == [
        *heard("<|begin_of_text|>"),
        *heard("<|start_header_id|>", "u", "s", "er", "<|end_header_id|>", *new_line),
        *heard("be", "<|eot_id|>"),
        *heard("<|start_header_id|>", *a, "<|end_header_id|>", *new_line),
        *said("the", " be", "<|eot_id|>"),
        *heard("<|start_header_id|>", "u", "s", "er", "<|end_header_id|>", *new_line),
        *heard("be", "<|eot_id|>"),
        *heard("<|start_header_id|>", *a, "<|end_header_id|>", *new_line),
        *said("the", "<|eot_id|>"),
    ]


def test_calls_count_in_llama_31s_chat_template(meta, tmp_path):
    shutil.copy(meta / "tokenizer.model", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(LLAMA_31_TEMPLATE)
    bos = {"bos_token": "<|begin_of_text|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(bos))
    line = {
        "messages": [
            user("Weather?"),
            assistant("", tool_calls=[call("get_weather", city="Rome")]),
            tool("sunny"),
            assistant("Sunny."),
        ],
        "tools": [definition("get_weather")],
    }
    tokens = labelled(tmp_path, line)
    counted = "".join(text for text, counts in tokens if counts)
    assert counted == (
        '{"name": "get_weather", "parameters": {"city": "Rome"}}<|eot_id|>Sunny.<|eot_id|>'
    )
