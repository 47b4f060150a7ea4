"""Loaded by every process a test starts: nothing may connect to another machine, or look one up."""

import socket

LOCAL = ("127.0.0.1", "::1", "localhost", "", None)
_connect, _look_up = socket.socket.connect, socket.getaddrinfo


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
        raise AssertionError(f"a connection to {address} was tried")
    return _connect(self, address)


def look_up(host, *rest, **more):
    # Processes of one run find each other by this machine's own name; any other name is the network.
    if host not in (*LOCAL, socket.gethostname()):
        raise socket.gaierror(socket.EAI_AGAIN, f"the test has no network: {host}")
    return _look_up(host, *rest, **more)


socket.socket.connect = connect
socket.getaddrinfo = look_up
