"""The shadowed step: each operation of a training is computed again on the host, on the inputs that the device has made."""
