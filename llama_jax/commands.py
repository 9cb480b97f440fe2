"""The table of commands: every name and the function behind it, imported when the command is asked
for, so that `--help` answers at once, and no command waits for the libraries of another."""

COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": (
        "infer.quickstart:quickstart",
        "a tour with a small real model: convert, ask, export",
    ),
    "convert": (
        "llama_jax.checkpoints.convert:convert_command",
        "a checkpoint of any format to hf, meta or orbax",
    ),
    "quantize": (
        "llama_jax.checkpoints.quantize:quantize_command",
        "a checkpoint's weights in 8 or 4 bits, for inference",
    ),
    "merge": (
        "llama_jax.checkpoints.merged_source:merge_command",
        "a LoRA adapter into the weights of its base model",
    ),
    "retokenize": (
        "llama_jax.checkpoints.retokenized_source:retokenize_command",
        "a checkpoint with another tokenizer, to be trained on",
    ),
    "inspect": (
        "llama_jax.checkpoints.inspect:inspect_command",
        "what a checkpoint is: format, config, sizes, tokenizer",
    ),
    "compare": (
        "llama_jax.checkpoints.compare:compare_command",
        "whether two checkpoints compute the same",
    ),
    "train": (
        "train.command:train",
        "train a model: any stage from pretraining to DPO",
    ),
    "post-train": (
        "train.rounds.post_train_command:post_train",
        "rounds of post-training from a config, each step one of these commands",
    ),
    "average": (
        "train.averaging:average_command",
        "the mean of several checkpoints of one model",
    ),
    "data prepare": (
        "train.data.prepare_command:prepare_command",
        "a text corpus to packed rows of tokens to train on",
    ),
    "data dialogs": (
        "train.data.examples.dialogs_command:dialogs_command",
        "dialogs to packed rows to fine-tune on",
    ),
    "data preferences": (
        "train.data.examples.preferences_command:preferences_command",
        "compared answers to packed rows for DPO or a reward model",
    ),
    "tokenizer train": (
        "train.tokenizer.train_command:train_command",
        "a new tokenizer from text in one or many languages",
    ),
    "tokenizer report": (
        "train.tokenizer.report_command:report_command",
        "how well tokenizers do on text, language by language",
    ),
    "generate": (
        "infer.generate_command:generate",
        "continue one or many prompts in a batch",
    ),
    "chat": ("infer.chat_terminal:chat", "talk to a model in the terminal"),
    "batch": (
        "infer.batch.batch_command:batch",
        "a file of prompts to a file of answers, that survives being killed",
    ),
    "guard": (
        "infer.guard.guard_command:guard",
        "safety verdicts on dialogs, by Llama Guard 3",
    ),
    "prompt-guard": (
        "infer.guard.prompt_guard_command:prompt_guard",
        "who tries to take the model over, by Prompt Guard",
    ),
    "ask": (
        "infer.remote.ask_command:ask",
        "a file of prompts to a file of answers, by a model behind a URL",
    ),
    "serve": (
        "infer.server.serve_command:serve",
        "an OpenAI-compatible server, with a chat page",
    ),
    "evaluate": (
        "infer.evaluation.evaluate_command:evaluate",
        "how many questions a model answers rightly",
    ),
    "refusals": (
        "infer.evaluation.refusals_command:refusals",
        "how often answers decline, where they should and should not",
    ),
    "score": (
        "train.scoring.score_command:score",
        "a reward model's scores of answers or of preferences",
    ),
    "verify": (
        "train.selection.verify_command:verify",
        "answers that a program can mark to a file of scores",
    ),
    "select": (
        "train.selection.select_command:select",
        "scored answers to rows of SFT and of preferences",
    ),
    "bench infer": (
        "infer.benchmark.command:bench_infer",
        "tokens per second of generation, against named peers",
    ),
    "bench train": (
        "train.benchmark:bench_train",
        "tokens per second of training, and shares of the peak",
    ),
    "bench kernels": (
        "llama_jax.kernels.benchmark:bench_kernels",
        "each kernel's speed, or its registers as compiled for a target",
    ),
    "plan": (
        "llama_jax.plan_command:plan",
        "a step compiled for a machine that is not here: does it fit, how fast",
    ),
    "report": ("train.report:report", "what happened in a run, as pictures and a page"),
    "doctor": ("llama_jax.doctor:doctor", "devices and versions on this machine"),
}
"""Command, of one word or two -> ("module:function", what it does in one line)."""
