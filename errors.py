"""The one error that a user can cause."""


class InputError(Exception):
    """A file or an option that cannot be used.

    The message is one line that names the file or option, what was found and what was expected.
    Scripts print it and exit with status 2; see `run_nerf.main`.
    """
