"""A stage's step on machines that are not here."""
