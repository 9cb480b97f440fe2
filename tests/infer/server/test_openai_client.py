"""The official client against the real engine: a tiny random model and a tokenizer of bytes."""

import asyncio
import json

import jsonschema
import openai
import pytest

from infer.answers import Answering
from infer.engine.engine import Engine
from infer.engine.settings import EVERYTHING, EngineSettings
from infer.loaded_model import load_model
from infer.protocol import ServedModel

TEMPLATE = (
    "<bos>{% for t in tools or [] %}<system>{{ t.function.name }}<eos>{% endfor %}"
    "{% for m in messages %}"
    "<user>{{ m.role }}:{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
HI = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"metric": {"type": "boolean"}},
            "required": ["metric"],
            "additionalProperties": False,
        },
    },
}

IMPOSSIBLE = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "king"}}}


@pytest.fixture(scope="module")
def engine(chat_checkpoint, tmp_path_factory, quick_compilation):
    """Two rows, so that a third answer waits; one sampling mode, which covers all. Three programs
    to compile."""
    folder = tmp_path_factory.mktemp("served")
    for path in chat_checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    loaded = load_model(folder)
    settings = EngineSettings(
        row_buckets=(2,),
        max_length=256,
        page_size=16,
        num_pages=32,
        prefill_tokens=64,
        prefill_lengths=(64,),
        modes=(EVERYTHING,),
        prompt_logprobs=True,
    )
    vocab_size = loaded.tokenizer.vocab_size
    engine = Engine(loaded.config, loaded.params, settings, vocab_size=vocab_size)
    engine.compile()
    return loaded, engine


@pytest.fixture(scope="module")
def server(engine, running_server):
    loaded, engine = engine
    model = ServedModel.of(loaded, names=("tiny",), max_length=engine.settings.max_length)
    answering = Answering(engine, loaded.tokenizer)
    server = running_server(
        model, answering, engine.usage, rows=engine.settings.num_rows, api_keys=("right",)
    )
    yield server
    assert server.listener._work.engine.usage.pages_used == 0
    server.leave()
    assert server.wait() == 0


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="right", max_retries=0) as client:
        yield client


def chat(client, messages=HI, **fields):
    return client.chat.completions.create(
        model="tiny", messages=messages, **{"max_tokens": 12, "seed": 1, **fields}
    )


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "llama-jax"


def test_a_stream_says_what_the_whole_answer_says(client):
    fields = {"temperature": 1.0, "extra_body": {"ignore_eos": True}}
    whole = chat(client, **fields)
    (choice,) = whole.choices
    assert whole.usage.completion_tokens == 12 and choice.finish_reason == "length"
    assert choice.message.role == "assistant" and choice.message.content
    with chat(client, stream=True, stream_options={"include_usage": True}, **fields) as stream:
        chunks = list(stream)
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(delta.delta.content or "" for delta in deltas) == choice.message.content
    assert deltas[-1].finish_reason == "length" and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_asynchronous_client_asks_for_many_at_once(server, client):
    """More than there are rows; each answer is that of its seed alone."""

    async def ask_all():
        async with openai.AsyncOpenAI(
            base_url=f"{server.address}/v1", api_key="right", max_retries=0
        ) as other:
            return await asyncio.gather(*(chat(other, temperature=1, seed=i) for i in range(6)))

    together = [answer.choices[0].message.content for answer in asyncio.run(ask_all())]
    alone = [chat(client, temperature=1, seed=i).choices[0].message.content for i in range(6)]
    assert together == alone and len(set(together)) > 1


def test_samples_have_the_seeds_that_follow(client):
    both = chat(client, n=2, temperature=1.0, seed=4)
    assert [choice.index for choice in both.choices] == [0, 1]
    single = chat(client, temperature=1.0, seed=5).choices[0].message.content
    assert both.choices[1].message.content == single


def test_a_stop_string_ends_the_answer(client):
    text = (
        client.completions.create(
            model="tiny",
            prompt="Hi",
            max_tokens=30,
            logit_bias={str(i): 50 for i in (65, 66)},
            seed=0,
            temperature=1.0,
        )
        .choices[0]
        .text
    )
    stop = text[4:7]
    stopped = client.completions.create(
        model="tiny",
        prompt="Hi",
        max_tokens=30,
        logit_bias={str(i): 50 for i in (65, 66)},
        seed=0,
        temperature=1.0,
        stop=stop,
    ).choices[0]
    assert stopped.text == text[: text.index(stop)] and stopped.finish_reason == "stop"


def test_a_forced_call_of_a_tool(client):
    fields = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 100, "temperature": 1.0}
    (choice,) = chat(client, **fields).choices
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    with chat(client, stream=True, **fields) as stream:
        calls = [
            call
            for chunk in stream
            for part in chunk.choices
            for call in part.delta.tool_calls or []
        ]
    assert "".join(call.function.arguments or "" for call in calls) == call.function.arguments
    # The result goes back in, and the model goes on.
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    messages = [*HI, choice.message.model_dump(exclude_none=True), result]
    assert chat(client, messages, tools=[WEATHER]).choices[0].finish_reason == "length"


def test_an_answer_that_fits_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "warm": {"type": "boolean"}},
        "required": ["colour", "warm"],
        "additionalProperties": False,
    }
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "colour", "schema": schema, "strict": True},
    }
    for seed in range(3):
        (choice,) = chat(
            client, response_format=response_format, max_tokens=150, temperature=1.0, seed=seed
        ).choices
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), schema)


def test_logprobs(client):
    fields = {"temperature": 0, "extra_body": {"ignore_eos": True}}
    (choice,) = chat(client, logprobs=True, top_logprobs=3, **fields).choices
    content = choice.logprobs.content
    assert len(content) == 12
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.token == token.top_logprobs[0].token  # greedy: the chosen is the likeliest
    # What is special has a name but no text.
    plain = [bytes(token.bytes) for token in content if not token.token.startswith("<")]
    assert b"".join(plain).decode(errors="replace") == choice.message.content
    completion = client.completions.create(
        model="tiny", prompt="Hello", max_tokens=1, echo=True, logprobs=0, seed=0
    ).choices[0]
    assert completion.text.startswith("Hello") and completion.logprobs.token_logprobs[0] is None
    assert len(completion.logprobs.tokens) == 6


@pytest.mark.parametrize(
    "fields, kind, message",
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"n": 10**6}, openai.BadRequestError, "n"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, openai.BadRequestError, "context"),
        ({"extra_body": {"best_off": 1}}, openai.BadRequestError, "best_off"),
        ({"response_format": IMPOSSIBLE}, openai.BadRequestError, "response_format"),
        ({"model": "gpt-4"}, openai.NotFoundError, "tiny"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(client, fields, kind, message):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HI, **fields})
    assert message in caught.value.body["message"]


def test_a_wrong_key(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="valid API key"):
            client.models.list()


def test_embeddings_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="embeddings are not served"):
        client.embeddings.create(model="tiny", input="x")


def test_a_stream_that_is_closed_gives_its_pages_back(server, client, wait_until):
    usage = lambda: server.listener._work.engine.usage  # noqa: E731
    for _ in range(3):
        stream = chat(client, stream=True, max_tokens=240, temperature=1.0)
        next(iter(stream))
        stream.close()
    wait_until(lambda: usage().running == 0 and usage().pages_used == 0)
    assert usage().new_tokens > 0
