"""How an optimizer update is executed: `eager`, as PyTorch runs it line by line."""
