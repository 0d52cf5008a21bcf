"""A guard for each Python process that has this folder in PYTHONPATH: it may talk to its own machine alone.

Python imports this file by its name when it starts; a forked process inherits the hook, which nothing can remove. Each
attempt to reach another machine fails, and is a line of the file LABELRANK_TEST_GUARD; `started` is a line too, so that
a test sees that the guard stood.
"""

import ipaddress
import os
import sys

_LOG = os.open(os.environ["LABELRANK_TEST_GUARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _say(*words):
    os.write(_LOG, (" ".join(map(str, words)) + "\n").encode())


def _is_here(host):
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def _watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.getnameinfo"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1]
    else:
        return
    host = host[0] if isinstance(host, tuple) else host
    # A path is a socket between processes of this machine.
    if _is_here(host) or str(host).startswith(("/", "\0", "b'\\x00", "b'/")):
        return
    _say(event, host)
    raise ConnectionRefusedError(f"{event} to {host}: a test allows no other machine")


_say("started")
sys.addaudithook(_watch)
