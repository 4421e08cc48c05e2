"""What a run trains on, as one object: the only place that names `torch.cuda` and asks which kind of device it is."""
