"""Imported first by the warm server, so that signals for the sweep do not end its server.

A batch system sends them to all processes of a job, a terminal to all processes of a group. The server ends with
its parent; its children set their own handlers.
"""

import signal

for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
