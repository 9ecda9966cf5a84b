"""The two implementations, PyTorch and Jittor, and the protocol that both fulfil."""
