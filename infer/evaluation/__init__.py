r"""`llama-jax evaluate`: how many questions a model answers rightly; `llama-jax refusals`: how
often it declines to.

Every question becomes one or several rows of a batch job, so evaluation has its engine, its meshes
and its resumption, and what was answered lies in files that can be read.

    OUTPUT/rows.jsonl      what is asked: a row for each open question, one for each choice
    OUTPUT/answers.jsonl   by `llama-jax batch`; its errors, manifest and parts beside it
    OUTPUT/questions.jsonl a line a question: how it was answered, and whether that is right
    OUTPUT/results.json    accuracies with their standard errors, whole and by category

The harness of EleutherAI runs against our server, and gives the same log-probabilities
(`tests/infer/evaluation/test_lm_eval.py`):

    llama-jax serve MODEL --prompt-logprobs
    lm_eval --model local-completions --tasks TASK --model_args \
        base_url=http://127.0.0.1:8000/v1/completions,model=NAME,tokenizer=MODEL,num_concurrent=16
    lm_eval --model local-chat-completions --apply_chat_template --tasks TASK --model_args \
        base_url=http://127.0.0.1:8000/v1/chat/completions,model=NAME,num_concurrent=16

`tasks` names what can be asked, `choice_rows` scores choices, `results` counts.
"""
