"""A disk that is full."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(size):
    """In the block no file may grow above so many bytes: writing fails half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
