"""`llama-jax evaluate`: how many questions a model answers rightly; `llama-jax refusals`: how often
it declines to.

Every question becomes one or several rows of a batch job, so evaluation has its engine, its meshes
and its resumption, and what was answered lies in files that can be read.

    OUTPUT/rows.jsonl      what is asked: a row for each open question, one for each choice
    OUTPUT/answers.jsonl   by `llama-jax batch`; its errors, manifest and parts beside it
    OUTPUT/questions.jsonl a line a question: how it was answered, and whether that is right
    OUTPUT/results.json    accuracies with their standard errors, whole and by category

`tasks` names what can be asked, `choice_rows` scores choices, `results` counts.
"""
