"""The profiles that come with fleetgate, one YAML file each; `load.py` reads them and the operator's own."""
