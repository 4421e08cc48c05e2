"""Pictures of a study: matplotlib figures with a text alternative each, or the reason why there is none."""
