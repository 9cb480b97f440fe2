"""Guards at work: Llama Guard in batch jobs and before and after a server's answers; Prompt Guard.

judge             turns of a dialog to the engine's request, its answer to a judgement
guard_rows        rows of a file to messages
guard_kind        the batch job: `llama-jax guard` (`guard_command`)
prompt_guard_job  the job without an engine: `llama-jax prompt-guard` (`prompt_guard_command`)
"""
