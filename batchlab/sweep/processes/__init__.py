"""The processes of a sweep: the server that forks them, and the supervisor that starts and ends them."""
