"""OpenSSL's queue of errors, one for each thread, which Python 3.13 leaves behind when a connection breaks in a system call.

OpenSSL then takes the old error for the answer to the next call that merely has to wait, on whatever connection: every later move
by that thread would fail with "Broken pipe", though nothing is broken. So the queue is emptied before a connection is used.
"""

import ctypes
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

LIBRARY = "libcrypto.so.3"


def find(library: str = LIBRARY) -> Callable[[], object]:
    """What empties the queue of the calling thread; nothing where there is no such library: Python has another one inside then."""
    try:
        function = ctypes.CDLL(library).ERR_clear_error
    except (OSError, AttributeError) as error:
        log.info("old errors of TLS are not forgotten: %s", error)
        return lambda: None
    function.restype, function.argtypes = None, ()
    return function


forget_errors = find()
