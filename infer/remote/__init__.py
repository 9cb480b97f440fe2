"""`llama-jax ask`: a batch job whose rows are answered by a model behind a URL.

The job is that of `infer/batch` in all but who answers: the same files, claims, resumption and
errors. `remote_request` makes of a row what is sent, `remote_client` sends it and tries again,
`remote_runner` keeps so many under way.
"""
