"""What a run leaves on disk: the journal, the record, the TensorBoard events, and the exports made from them."""
