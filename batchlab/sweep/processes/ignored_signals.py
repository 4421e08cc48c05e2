"""Imported first by the warm server, so that signals which are meant for a sweep do not end its server.

A batch system sends them to every process of a job, and a terminal to every process of a group. The server ends with
its parent; its children set their own handlers.
"""

import signal

for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
