"""One thread: the tests' tensors are tiny, and many threads on a busy machine only wait for one another."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the tests' own processes
