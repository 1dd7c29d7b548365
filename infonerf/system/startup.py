"""What a script needs before torch is loaded: import this first. docs/lab/speed.md has the measurements.

Threads: after each operation PyTorch's threads spin until all are done. Where another program holds one's core, GNU
OpenMP's default time of spinning makes everything many times slower; without any, waking the threads costs a quarter
of a step. This is a setting between the two.

Memory: glibc hands freed blocks back to the kernel at once, and gets them anew, filled with zeros, for the next
operation. Keeping them costs nothing here, where a step's blocks are small.

What the environment says about either stands.

Ctrl-C: loading torch takes seconds, in which one would end in a long traceback.

Standard streams that are closed: the next file that is opened, a checkpoint say, would take the place of one, and hold
what a library prints.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
malloc_is_set = any(name.startswith("MALLOC_") for name in os.environ)
if sys.platform == "linux" and not malloc_is_set and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda name, value: 0)  # not in every C library
    if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # older ones take no more
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


for descriptor in range(3):
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def interrupted(signum, frame):
    """End a script that is still importing with one line; later, be a KeyboardInterrupt as ever."""
    if hasattr(sys.modules["__main__"], "main"):
        signal.default_int_handler(signum, frame)
    with suppress(OSError):
        os.write(2, f"{os.path.basename(sys.argv[0])}: stopped\n".encode())
    os._exit(130)


root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
script = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or os.devnull)
is_ours = os.path.dirname(script) in (root, os.path.join(root, "infonerf"))
if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupted)
