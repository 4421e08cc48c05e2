"""Journals -> tables, fits, claims, recommendation, pictures: reads run folders anywhere, without torch or a GPU."""
