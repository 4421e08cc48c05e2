"""The data that ships with batchlab, written only against the contract that a user's own is written against."""
