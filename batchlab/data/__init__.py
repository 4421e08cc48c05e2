"""The data sets that ship with batchlab; they use the same contract as a user's own."""
