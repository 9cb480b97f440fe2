"""The name under which attention's results can be kept for the backward pass (`model/remat.py`)."""

ATTENTION = "attention"
