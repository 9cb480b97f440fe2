"""The line that runs lm-eval against `llama-jax serve`, and our numbers beside the harness's.

    llama-jax serve MODEL --prompt-logprobs
    lm_eval --model local-completions --model_args \
        base_url=http://127.0.0.1:8000/v1/completions,model=NAME,tokenizer=MODEL,num_concurrent=16 \
        --tasks TASK

Needs lm-eval 0.4.13 with its extra `api`, installed, or in a folder that the environment calls
`LM_EVAL_FOLDER` (`pip install --target`).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax.__main__ import main
from tests.infer.remote.test_our_server import served

FOLDER = os.environ.get("LM_EVAL_FOLDER")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FOLDER is None and importlib.util.find_spec("lm_eval") is None,
        reason="needs lm-eval: pip install 'lm-eval[api]==0.4.13'",
    ),
]

TASKS = {
    "tiny_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "tiny_open": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


def lm_eval(kind, tasks, folder, model_args, *options):
    """Runs the harness; its results."""
    paths = [str(Path(__file__).parents[3]), *([FOLDER] if FOLDER else [])]
    subprocess.run(
        [sys.executable, "-m", "lm_eval", "--model", kind, "--model_args", model_args, "--tasks",
         tasks, "--include_path", str(folder), "--output_path", str(folder / kind),
         "--log_samples", *options],
        check=True, timeout=300, cwd=folder, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(reversed(paths)), "OPENAI_API_KEY": "k",
             "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")},
    )  # fmt: skip
    (results,) = (folder / kind).rglob("results_*.json")
    return json.loads(results.read_text())["results"]


def test_the_harness_asks_our_server_and_counts_as_we_do(chat_checkpoint, tmp_path):
    rows = [
        {"question": f"What is {a} + {b}?", "choices": [str(a + b), str(a + b + 1), "a long one"],
         "answer": 0}
        for a in range(3) for b in range(3)
    ]  # fmt: skip
    data = tmp_path / "choice.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        files = (
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}"
        )
        (tmp_path / f"{name}.yaml").write_text(f"{files}\ntest_split: test{text}")
    with served(chat_checkpoint, "--prompt-logprobs") as address:
        completions = lm_eval(
            "local-completions", "tiny_choice,tiny_open", tmp_path,
            f"base_url={address}/v1/completions,model=chat,tokenizer={chat_checkpoint},"
            "tokenizer_backend=huggingface,num_concurrent=2,max_length=256",
        )  # fmt: skip
        chat = lm_eval(
            "local-chat-completions", "tiny_open", tmp_path,
            f"base_url={address}/v1/chat/completions,model=chat,num_concurrent=2",
            "--apply_chat_template",
        )  # fmt: skip
    assert (
        "exact_match,none" in chat["tiny_open"] and "exact_match,none" in completions["tiny_open"]
    )
    with pytest.raises(SystemExit):
        main(
            ["evaluate", str(chat_checkpoint), str(data), "--format", "raw", "--rows", "2",
             "--output", str(tmp_path / "ours"), "--quiet"]
        )  # fmt: skip
    ours = json.loads((tmp_path / "ours" / "results.json").read_text())
    metric = ours["tasks"]["choice"]["metrics"]["accuracy"]
    theirs = completions["tiny_choice"]
    assert theirs["acc,none"] == pytest.approx(metric["mean"])
    assert theirs["acc_stderr,none"] == pytest.approx(metric["standard_error"])
    (samples,) = (tmp_path / "local-completions").rglob("samples_tiny_choice_*.jsonl")
    by_question = {row["doc_id"]: [float(one[0][0]) for one in row["resps"]]
                   for row in map(json.loads, samples.read_text().splitlines())}  # fmt: skip
    lines = (tmp_path / "ours" / "questions.jsonl").read_text().splitlines()
    for place, line in enumerate(lines):
        # Server and batch job compile the same programs; the two may differ by rounding.
        assert json.loads(line)["logprobs"] == pytest.approx(by_question[place], abs=1e-4)
