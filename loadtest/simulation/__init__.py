"""A fleet in virtual time: what several teams see of so many nodes, before any of them is rented."""
