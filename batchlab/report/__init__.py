"""Journals -> tables, fits, claims, recommendation, figures: reads run folders anywhere, without torch or a GPU."""
