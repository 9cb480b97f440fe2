"""`llama-jax batch`: a file of questions to a file of answers, that survives being killed.

    IN.jsonl                read twice: once to measure and check, then row by row
    OUT.jsonl.manifest.json what the job is: a second start with anything else is refused
    OUT.jsonl.parts/        while it goes on: claims, and one file of finished rows a process
    OUT.jsonl               at the end, at once and whole: the answers, in the order of the input
    OUT.jsonl.errors.jsonl  the rows that failed, and why (`--output-errors`)

`row_table` measures, `schedule` orders, `claims` divides, `part_file` keeps, `merge` ends.
"""
