"""Soak: mixed load with faults for minutes or hours, and what of it is still held when all of it is over."""
