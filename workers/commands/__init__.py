"""The commands of `fleetgate-worker`, one module each; `workers.cli` puts them together."""
