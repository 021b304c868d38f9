"""The one error that means "what you passed cannot work"."""


class NoiseError(ValueError):
    """A value that the user gave is not accepted; the message is one sentence that names it and what is."""
