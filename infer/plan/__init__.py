"""An engine's programs on machines that are not here."""
