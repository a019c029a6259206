"""Is this machine fit for a profile: what was seen, what is needed, how to fix it."""
