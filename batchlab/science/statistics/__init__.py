"""Error bars, effects and verdicts."""
