"""The device of a run as one object: the only package that uses `torch.cuda` and distinguishes kinds of devices."""
