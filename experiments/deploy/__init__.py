"""Real devices: the folder that a deployment needs, its SuperLink, and whether all is well."""
