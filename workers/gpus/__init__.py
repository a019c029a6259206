"""What the GPUs of this machine do, read through NVML while a node runs or is measured."""
