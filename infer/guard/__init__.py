"""Guards at work: Llama Guard in batch jobs and before and after a server's answers; Prompt Guard.

judge           turns of a dialog to the engine's request, its answer to a judgement
guard_rows      rows of a file to turns
guard_kind      the batch job: `llama-jax guard` (`guard_command`)
"""
