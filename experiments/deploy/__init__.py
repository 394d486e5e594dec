"""Real devices: the folder that a deployment needs, its SuperLink, and whether all is well."""

from experiments.deploy.folder import Server as Server
from experiments.deploy.folder import init as init
