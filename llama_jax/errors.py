"""The one exception that means "the user can fix this".

The front door (`llama_jax/__main__.py`) prints it as one line and exits with code 2; anything else
is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Bad input from the user. The message is one line that names the file or the argument and
    says what to change."""
