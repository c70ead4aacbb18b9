"""The one exception for what a user can mend: its text is the one line that the command line prints."""


class UserError(Exception):
    """A mistake that a user can mend. The text names the rule, the actual value and the way out, on one line."""
