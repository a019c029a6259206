"""How many nodes a workload needs, which resource decides it, and what that costs."""
