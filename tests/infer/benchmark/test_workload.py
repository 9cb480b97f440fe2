"""The offline job: reproducible, of the lengths asked for, without shared prefixes."""

import pytest

from infer.benchmark.workload import documentation_text, mixed_workload
from llama_jax.errors import InputError


def encode(text):
    return list(text.encode())


def workload(**changes):
    sizes = {"prompts": 20, "shortest": 8, "longest": 100, "new_tokens": 5}
    return mixed_workload(encode, **sizes | changes)


def test_lengths_span_the_range_evenly_in_their_logarithms():
    made = workload()
    lengths = sorted(map(len, made.prompts))
    assert lengths[0] == 8 and lengths[-1] == 100
    assert 25 <= lengths[10] <= 35  # near the geometric mean, 28
    assert made.num_new_tokens == 100 and made.num_prompt_tokens == sum(lengths)
    assert [len(prompt) for prompt in made.prompts] != lengths


def test_prompts_are_pieces_of_the_text_and_the_same_every_time():
    made = workload()
    text = documentation_text().encode()
    assert all(bytes(prompt) in text for prompt in made.prompts)
    assert made == workload() and made != workload(seed=1)


def test_no_two_prompts_begin_at_one_place():
    made = workload(prompts=500, shortest=40, longest=60)
    beginnings = [prompt[:40] for prompt in made.prompts]
    assert len(set(beginnings)) > 490  # the text repeats itself in places


def test_a_job_longer_than_the_text_is_refused():
    with pytest.raises(InputError, match="too few"):
        workload(longest=10**7)
