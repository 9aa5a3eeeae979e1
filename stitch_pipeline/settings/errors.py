"""The one error that a wrong setting raises, whichever file or variable it is in."""


class SettingsError(Exception):
    """A setting is wrong. The message is one sentence for each: the key, the value and the remedy."""
