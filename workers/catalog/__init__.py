"""What the planner knows about GPUs and models: typed facts, read from the YAML files beside this module."""
