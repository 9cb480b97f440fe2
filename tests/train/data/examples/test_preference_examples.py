"""Pairs and groups: the arrays that a batch gets of hand-written preferences."""

import numpy as np
import pytest

from llama_jax.tokenizers import load_tokenizer
from train.data.examples.example import joined
from train.data.examples.example_row import example_row
from train.data.examples.refused_example import RefusedExample

from .lines import assistant, call, maker, user

HEADER = ["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"]
PROMPT = ["<|begin_of_text|>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"]
PROMPT += ["Why", "?", "<|eot_id|>"]
LINE = {"messages": [user("Why?")], "chosen": "So it is", "rejected": "No"}


def texts(tokenizer, ids):
    return [tokenizer.decode([int(id)]) for id in ids]


def test_a_pair_is_two_dialogs_of_which_only_the_answers_count(meta):
    file = meta / "tokenizer.model"
    tokenizer = load_tokenizer(file)
    pair = maker(file, "pairs")(LINE)
    chosen = [*PROMPT, *HEADER, "So", " it", " is", "<|eot_id|>"]
    rejected = [*PROMPT, *HEADER, "No", "<|eot_id|>"]
    assert texts(tokenizer, pair.tokens) == chosen + rejected
    assert pair.starts.tolist() == [0, len(chosen)] and pair.num_slots == 1
    zeros = [0] * len(PROMPT + HEADER)
    assert pair.masks[0].astype(int).tolist() == [*zeros, 1, 1, 1, 0, *zeros, 1, 0]
    assert pair.masks[1].astype(int).tolist() == [*zeros, 1, 1, 1, 1, *zeros, 1, 1]

    row = example_row(joined([pair, pair]), "pairs", row_length=60, slots=3)
    arrays = row.arrays()
    assert {name: (a.shape, a.dtype.name) for name, a in arrays.items()} == {
        **{name: ((60,), "int32") for name in ("tokens", "targets", "segment_ids")},
        **{name: ((60,), "bool") for name in ("loss_mask", "nll_mask")},
    }
    both = len(chosen + rejected)
    expected = [1] * len(chosen) + [2] * len(rejected) + [3] * len(chosen) + [4] * len(rejected)
    assert arrays["segment_ids"].tolist() == expected + [0] * (60 - 2 * both)
    for segment, answer in ((1, "So it is"), (2, "No"), (3, "So it is"), (4, "No")):
        within = arrays["segment_ids"] == segment
        counted = arrays["targets"][arrays["loss_mask"] & within]
        assert tokenizer.decode(counted.tolist()) == answer
        likely = arrays["targets"][arrays["nll_mask"] & within]
        assert tokenizer.decode(likely.tolist()) == answer + "<|eot_id|>"


def test_the_end_of_a_turn_counts_where_it_is_asked_for(meta):
    pair = maker(meta / "tokenizer.model", "pairs", count_end_of_turn=True)(LINE)
    assert np.array_equal(pair.masks[0], pair.masks[1])


def test_earlier_turns_of_the_assistant_do_not_count(chatml):
    messages = [user("a"), assistant("be"), user("the")]
    pair = maker(chatml, "pairs")({"messages": messages, "chosen": "to be", "rejected": "or"})
    tokenizer = load_tokenizer(chatml)
    for mask, end in ((pair.masks[0], ""), (pair.masks[1], "<|im_end|>")):
        second = pair.starts[1]
        assert tokenizer.decode(pair.tokens[:second][mask[:second]].tolist()) == "to be" + end
        assert tokenizer.decode(pair.tokens[second:][mask[second:]].tolist()) == "or" + end


def test_what_was_edited_is_taken_before_what_was_chosen_and_calls_are_answers(meta):
    file = meta / "tokenizer.model"
    code = assistant(None, tool_calls=[call("code_interpreter", code="1")])
    pair = maker(file, "pairs")({**LINE, "edited": code})
    counted = load_tokenizer(file).decode(pair.tokens[pair.masks[0]].tolist())
    assert counted == "<|python_tag|>1No"
    likely = load_tokenizer(file).decode(pair.tokens[pair.masks[1]].tolist())
    assert likely == "<|python_tag|>1<|eom_id|>No<|eot_id|>"


@pytest.mark.parametrize("seed", range(4))
def test_a_group_is_one_prompt_with_its_answers_in_shuffled_order(meta, seed):
    file = meta / "tokenizer.model"
    tokenizer = load_tokenizer(file)
    group = maker(file, "groups", seed=seed)({**LINE, "edited": "Yes"})
    assert group.starts.tolist() == [0] and not len(group.masks)
    bodies = {0: ["Yes"], 1: ["So", " it", " is"], 2: ["No"]}
    expected, ends = list(PROMPT), []
    for rank in group.answers[:, 1]:
        expected += [*HEADER, *bodies[int(rank)], "<|eot_id|>"]
        ends.append(len(expected) - 1)
    assert texts(tokenizer, group.tokens) == expected
    assert group.answers[:, 0].tolist() == ends and sorted(group.answers[:, 1]) == [0, 1, 2]

    row = example_row(joined([group, group]), "groups", row_length=80, slots=8)
    arrays = row.arrays()
    assert set(arrays) == {
        *("tokens", "targets", "segment_ids"),
        *("answer_ends", "answer_groups", "answer_ranks"),
    }
    assert all(a.dtype == np.int32 for a in arrays.values())
    n = len(expected)
    assert arrays["answer_ends"].tolist() == [*ends, *(n + end for end in ends), -1, -1]
    assert arrays["answer_groups"].tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    ranks = group.answers[:, 1].tolist()
    assert arrays["answer_ranks"].tolist() == [*ranks, *ranks, 0, 0]
    of_answers = arrays["tokens"][arrays["answer_ends"][:6]]
    assert texts(tokenizer, of_answers) == ["<|eot_id|>"] * 6


def test_answers_of_a_template_end_at_the_token_that_ends_the_turn(chatml):
    group = maker(chatml, "groups")(LINE)
    tokenizer = load_tokenizer(chatml)
    assert texts(tokenizer, group.tokens[group.answers[:, 0]]) == ["<|im_end|>"] * 2
    text = tokenizer.decode(group.tokens.tolist())
    assert text.count("Why?") == 1 and text.endswith("<|im_end|>\n")


def test_the_order_is_of_the_answers_not_of_the_place_and_both_come_first(chatml):
    make = maker(chatml, "groups", seed=1)
    lines = [{**LINE, "messages": [user(f"Why {index}?")]} for index in range(40)]
    first_ranks = [int(make(line).answers[0, 1]) for line in lines]
    assert first_ranks == [int(make(line).answers[0, 1]) for line in lines]
    assert 10 < first_ranks.count(1) < 30
    other = maker(chatml, "groups", seed=2)
    assert first_ranks != [int(other(line).answers[0, 1]) for line in lines]


def test_answers_that_a_template_writes_alike_are_identical(tokenizer, tmp_path):
    for file in tokenizer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = "{% for m in messages %}{{ '<|im_start|>' + m.content | trim + '<|im_end|>' }}"
    template += "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    for kind in ("pairs", "groups"):
        make = maker(tmp_path, kind)
        assert len(make(LINE).tokens)
        with pytest.raises(RefusedExample, match="writes the same of both"):
            make({**LINE, "rejected": "So it is "})


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer, tmp_path):
    for file in tokenizer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = "{% for m in messages %}{{ '<|im_start|>' ~ messages | length ~ m.content }}"
    template += "{% if m.role == 'assistant' %}{% generation %}{{ 'x<|im_end|>' }}"
    template += "{% endgeneration %}{% endif %}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(RefusedExample, match="writes the prompt otherwise when an answer follows"):
        maker(tmp_path, "groups")(LINE)
