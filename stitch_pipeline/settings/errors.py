"""The one error for a wrong setting, in any file or variable."""


class SettingsError(Exception):
    """Settings are wrong. The message has one sentence for each, with the key, the value and the remedy."""
