"""Every contestant that is installed answers a tiny job with the same tokens."""

import pytest

from infer.benchmark.engine_contestant import EngineContestant
from infer.benchmark.gguf_export import export_gguf
from infer.benchmark.workload import Workload
from llama_jax.checkpoints.formats import open_source

WORKLOAD = Workload(
    prompts=((256, 70, 71, 72, 73), (256, 90), (256, 10, 11, 12, 13, 14, 15, 16, 17)),
    new_tokens=6,
    text_sha256="",
)


@pytest.fixture(scope="module")
def expected(base_checkpoint):
    contestant = EngineContestant(base_checkpoint, "float32", WORKLOAD, rows=2)
    contestant.warm_up(WORKLOAD)
    first, second = contestant.run(WORKLOAD), contestant.run(WORKLOAD)
    assert first.tokens == second.tokens and contestant.weight_bytes > 0
    assert [len(row) for row in first.tokens] == [6, 6, 6]
    return first.tokens


def run(contestant, **variant):
    contestant.warm_up(WORKLOAD)
    return contestant.run(WORKLOAD, **variant).tokens


@pytest.mark.parametrize("batch_size, cache", [(1, "dynamic"), (2, "static"), (3, "dynamic")])
def test_transformers_generate(base_checkpoint, expected, batch_size, cache):
    pytest.importorskip("transformers")
    from infer.benchmark.transformers_contestants import Generate

    contestant = Generate(base_checkpoint, "float32")
    assert run(contestant, batch_size=batch_size, cache=cache) == expected


@pytest.mark.slow  # its manager polls in steps of a second
def test_transformers_continuous_batching(base_checkpoint, expected):
    pytest.importorskip("transformers")
    from infer.benchmark.transformers_contestants import ContinuousBatching

    assert run(ContinuousBatching(base_checkpoint, "float32"), page_size=32) == expected


@pytest.mark.parametrize("unified", [False, True])
def test_llama_cpp(base_checkpoint, expected, tmp_path, unified):
    pytest.importorskip("llama_cpp")
    from infer.benchmark.llama_cpp_contestant import LlamaCpp

    file = tmp_path / "model.gguf"
    export_gguf(open_source(base_checkpoint), file, dtype="float32")
    assert run(LlamaCpp(file), unified=unified, cache="float32") == expected
