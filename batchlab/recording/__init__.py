"""The files of a run: the journal, the record, the checkpoints, and the exports made from them."""
