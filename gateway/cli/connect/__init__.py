"""`fleetgate connect CLIENT`: the lines that a client needs, its files, and a look at what it would see."""
