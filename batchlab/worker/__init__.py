"""Everything that runs in the child processes of a sweep, with torch, and the messages between parent and child."""
