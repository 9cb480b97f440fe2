"""A guard before and after the answers: what is unsafe is neither answered nor sent.

Both engines follow scripts: the answer is what the test says, and the guard calls a dialog unsafe
that holds a `~`.
"""

import json
import threading
import time
import typing

import openai
import pytest

from infer.answers import AnswerDelta, LikelyToken, TextLogprob
from infer.engine.usage import EngineUsage
from infer.guard.guard_options import Form
from infer.guard.judge import Judge
from infer.loaded_model import load_model
from infer.server.run_server import GuardEngine
from llama_jax.chat import ToolCall
from llama_jax.errors import InputError
from llama_jax.safety import FORMS, GuardPolicy, LlamaGuard, Turn

USAGE = EngineUsage(0, 0, 0, 0, 100, 0, 0, 0, 0, 0)
HI = [{"role": "user", "content": "Hi"}]
BAD = [{"role": "user", "content": "~"}]


class Script:
    """An engine that gives each answer in pieces, one a step.

    Attributes:
      may_step: cleared, it holds every step up.
      fault: raised by the next step, if set.
    """

    def __init__(self):
        self.may_step = threading.Event()
        self.may_step.set()
        self.fault = None
        self.waiting = {}
        self.num_added = 0

    @property
    def is_idle(self):
        return not self.waiting

    def pieces(self, request, index):
        raise NotImplementedError

    def add(self, request):
        self.num_added += 1
        self.waiting[self.num_added] = {
            index: list(self.pieces(request, index)) for index in range(request.n)
        }
        return self.num_added

    def cancel(self, answer_id):
        self.waiting.pop(answer_id, None)

    def usage(self):
        return USAGE

    def step(self):
        self.may_step.wait()
        if self.fault is not None:
            raise self.fault
        deltas = []
        for answer_id, samples in list(self.waiting.items()):
            for index, pieces in list(samples.items()):
                fields = pieces.pop(0)
                finish = None if pieces else fields.pop("finish_reason", "stop")
                deltas.append(AnswerDelta(answer_id, index, finish_reason=finish, **fields))
                if not pieces:
                    del samples[index]
            if not samples:
                del self.waiting[answer_id]
        return deltas


class Answerer(Script):
    """Says the texts of `says`, sample by sample, letter by letter."""

    says = ("fine",)
    calls = ()

    def pieces(self, request, index):
        text = self.says[index % len(self.says)]
        for place, letter in enumerate(text):
            token = LikelyToken(0, letter, letter.encode(), -0.5)
            logprob = TextLogprob(0, letter, letter.encode(), -0.5, (token,))
            yield {
                "text": letter,
                "tokens": (0,),
                "logprobs": (logprob,) if request.num_logprobs is not None else (),
                "num_new_tokens": place + 1,
            }
        if self.calls:
            yield {"tool_calls": self.calls, "finish_reason": "tool_calls", "num_new_tokens": 9}
        else:
            yield {"num_new_tokens": len(text) + 1}


class Guard(Script):
    """`says` is what it answers in place of a verdict, `error` what it fails of."""

    says = None
    error = None

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.asked = []

    def pieces(self, request, index):
        prompt = self.tokenizer.decode(request.prompt)
        self.asked.append(prompt.split("<BEGIN CONVERSATION>\n\n")[1].split("<END")[0].strip())
        if self.error:
            return [{"finish_reason": "error", "error": self.error}]
        return [{"text": self.says or ("unsafe\nS1" if "~" in self.asked[-1] else "safe")}]


@pytest.fixture(scope="module")
def loaded_guard(guard_checkpoint):
    return load_model(guard_checkpoint)


@pytest.fixture
def served(running_server, served_model, loaded_guard):
    """The server; `answerer` and `guard` are its engines, `client` is OpenAI's."""
    answerer, guard = Answerer(), Guard(loaded_guard.tokenizer)
    judge = Judge(LlamaGuard(GuardPolicy()), loaded_guard, max_length=2048, model="guard")
    server = running_server(
        served_model, answerer, answerer.usage, guard=GuardEngine(judge, guard, guard.usage)
    )
    server.answerer, server.guard = answerer, guard
    server.client = openai.OpenAI(
        base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=20
    )
    yield server
    for engine in (answerer, guard):
        engine.may_step.set()
    server.client.close()
    if server.code is None:
        server.leave()
        server.wait()


def ask(served, messages=HI, **fields):
    return served.client.chat.completions.create(model="tiny", messages=messages, **fields)


def test_what_is_safe_passes_both_ways(served):
    answer = ask(served, [{"role": "system", "content": "~"}, *HI])
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("fine", "stop")
    assert choice.message.refusal is None
    assert served.guard.asked == ["User: Hi", "User: Hi\n\nAgent: fine"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unsafe_prompt_is_refused_before_it_reaches_the_model(served, stream):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(served, BAD, stream=stream)
    assert refused.value.code == "content_filter"
    assert "refused by this server's guard (S1)" in str(refused.value)
    assert served.answerer.num_added == 0
    assert (
        'llama_jax_filtered_total{place="prompt"} 1.0'
        in served.request("GET", "/metrics")[2].decode()
    )


def test_an_unsafe_answer_is_withheld(served):
    served.answerer.says = ("secret~",)
    answer = ask(served, logprobs=True, top_logprobs=1)
    (choice,) = answer.choices
    assert choice.finish_reason == "content_filter" and choice.stop_reason == "S1"
    assert choice.message.content is None and "withheld" in choice.message.refusal
    assert choice.logprobs.content == []
    assert answer.usage.completion_tokens == len("secret~") + 1
    assert not {"secret", "s"} & set(json.dumps(answer.model_dump()).split('"'))


def test_samples_are_judged_one_by_one(served):
    served.answerer.says = ("fine", "bad~", "good")
    choices = ask(served, n=3).choices
    assert [choice.message.content for choice in choices] == ["fine", None, "good"]
    assert [choice.finish_reason for choice in choices] == ["stop", "content_filter", "stop"]


def test_a_stream_comes_in_one_piece_once_it_has_been_judged(served):
    served.answerer.says = ("letters", "bad~")
    chunks = list(ask(served, n=2, stream=True, stream_options={"include_usage": True}))
    parts = {0: [], 1: []}
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        parts[choice.index].append(choice)
    assert [choice.delta.content for choice in parts[0]] == ["", "letters", None]
    assert [choice.finish_reason for choice in parts[0]] == [None, None, "stop"]
    assert [choice.delta.content for choice in parts[1]] == ["", None, None]
    assert "withheld" in parts[1][1].delta.refusal
    assert [choice.finish_reason for choice in parts[1]] == [None, None, "content_filter"]
    assert chunks[-1].usage.completion_tokens == len("letters") + len("bad~") + 2


def test_tool_calls_are_judged(served):
    served.answerer.says, served.answerer.calls = ("",), (ToolCall("run", {"code": "~"}),)
    (choice,) = ask(served).choices
    assert choice.finish_reason == "content_filter" and not choice.message.tool_calls
    served.answerer.calls = (ToolCall("run", {"code": "1"}),)
    (choice,) = ask(served).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.arguments == '{"code": "1"}'


def test_completions_are_judged_as_a_user_and_an_agent(served, served_model):
    served.answerer.says = ("bad~",)
    answer = served.client.completions.create(model="tiny", prompt=["Once", "Then"], echo=True)
    assert [choice.text for choice in answer.choices] == ["Once", "Then"]
    assert {choice.finish_reason for choice in answer.choices} == {"content_filter"}
    assert sorted(served.guard.asked) == [
        "User: Once", "User: Once\n\nAgent: bad~", "User: Then", "User: Then\n\nAgent: bad~",
    ]  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="guard"):
        ids = served_model.tokenizer.encode("as ids: ~")
        served.client.completions.create(model="tiny", prompt=ids)


@pytest.mark.parametrize("nonsense", ["", "SAFE", "safe enough", "unsafe", "unsafe\nS99"])
def test_a_guard_that_says_something_else_lets_nothing_through(served, nonsense):
    served.guard.says = nonsense or " "
    with pytest.raises(openai.BadRequestError) as refused:
        ask(served)
    assert refused.value.code == "content_filter" and served.answerer.num_added == 0


def test_an_answer_that_the_guard_cannot_judge_is_an_error(served, wait_until):
    served.guard.may_step.clear()
    failures = []

    def client():
        try:
            ask(served, stream=True).close()
        except openai.InternalServerError as error:
            failures.append(error)

    asking = threading.Thread(target=client)
    asking.start()
    wait_until(lambda: served.guard.waiting)
    served.guard.error = "logits are not finite"  # of the answer; the prompt is asked already
    served.guard.may_step.set()
    asking.join(20)
    assert "the guard could not judge: logits are not finite" in str(failures[0])


def test_a_dialog_that_is_no_guards_business_is_refused(served):
    for messages, words in [
        ([{"role": "user", "content": "x" * 190}, *HI], None),
        ([{"role": "assistant", "content": "Hi"}], "the assistant speaks first"),
        ([{"role": "system", "content": "Hi"}], "no user or assistant message"),
    ]:
        if words is None:
            assert ask(served, messages).choices[0].finish_reason == "stop"
            continue
        with pytest.raises(openai.BadRequestError, match=words):
            ask(served, messages)


def test_a_dialog_over_the_guards_length_is_refused(running_server, served_model, loaded_guard):
    answerer, guard = Answerer(), Guard(loaded_guard.tokenizer)
    prompt = LlamaGuard(GuardPolicy())
    short = Judge(prompt, loaded_guard, max_length=2048, model="guard").request(
        [Turn("user", "Hi")]
    )
    length = len(short.prompt) + short.max_new_tokens
    judge = Judge(prompt, loaded_guard, max_length=length, model="guard")
    server = running_server(
        served_model, answerer, answerer.usage, guard=GuardEngine(judge, guard, guard.usage)
    )
    try:
        body = {"messages": [{"role": "user", "content": "x" * 200}]}
        status, _, error = server.request("POST", "/v1/chat/completions", body)
        assert status == 400
        assert "which reads at most" in error["error"]["message"]
        assert "(by this server's guard)" in error["error"]["message"]
        assert answerer.num_added == 0
    finally:
        server.leave()
        server.wait()


def test_a_client_that_leaves_while_it_is_judged_leaves_nothing_behind(served, wait_until):
    served.answerer.says = ("secret",)

    def client():
        with pytest.raises(openai.APITimeoutError):
            ask(served, timeout=1)

    ask(served)  # everything works
    served.guard.may_step.clear()
    asking = threading.Thread(target=client)
    asking.start()
    wait_until(lambda: served.guard.waiting)
    asking.join(20)
    served.guard.may_step.set()
    wait_until(lambda: not served.guard.waiting and not served.answerer.waiting)
    assert ask(served).choices[0].message.content == "secret"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_its_guard_the_server_answers_nobody_and_ends(served, capsys):
    served.guard.fault = RuntimeError("out of memory")
    with pytest.raises(openai.InternalServerError, match="the engine has stopped"):
        ask(served)
    assert served.wait() == 1
    assert served.answerer.num_added == 0
    assert "error: the engine stopped: RuntimeError: out of memory" in capsys.readouterr().err


def test_many_at_once_get_their_own_verdicts(served):
    served.answerer.says = ("fine", "bad~")
    found = {}

    def client(number):
        time.sleep(0.01 * (number % 3))
        found[number] = [choice.finish_reason for choice in ask(served, n=2).choices]

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(20)
    assert found == dict.fromkeys(range(4), ["stop", "content_filter"])


def test_every_form_can_be_asked_for():
    assert typing.get_args(Form) == tuple(FORMS)


def test_options_of_a_guard_need_one():
    from infer.server.server_guard_options import ServerGuardOptions

    with pytest.raises(InputError, match="--guard-rows does nothing without a guard"):
        ServerGuardOptions(guard_rows=4)
    with pytest.raises(InputError, match="--guard-max-length must be at least 1"):
        ServerGuardOptions("model", guard_max_length=0)
    with pytest.raises(InputError, match="category 'S15': is unknown"):
        ServerGuardOptions("model", guard_exclude_category=("S15",)).prompt()
    described = ServerGuardOptions("model", guard_descriptions=True).prompt()
    assert "enables the creation of weapons" in described.text([Turn("user", "Hi")])
