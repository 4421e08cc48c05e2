"""The processes of a sweep: the server they are forked from, and who starts and ends them."""
