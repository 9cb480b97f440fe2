"""The JSONL files of a batch job, as whoever writes, answers, scores or chooses among them reads
them.

    IN.jsonl       questions: `batch_row`
    OUT.jsonl      answers: `answer_row`; beside it OUT.jsonl.manifest.json: `job_origin`
    SCORES.jsonl   a number an answer: `score_row`

Answers and scores are in the order of the questions, so `joined_rows` reads the three side by side
and holds one row of each. `output_paths` checks what a command that reads them is to write.
"""
