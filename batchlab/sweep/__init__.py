"""Many runs: which they are, a process for each, and what they came to."""
