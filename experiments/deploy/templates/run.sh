#!/bin/sh
# Runs the experiment of run.toml into run/, or goes on with it after an interruption.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
cd "$FLWR_HOME"
{
    cat "$here/run.toml"
    echo "run.dir = \"$here/run\""
    echo "run.resume = true"
    echo "devices.keys = \"$here/server/keys\""
} >run.toml
python -m experiments.deploy.app app
exec flwr run app fednf --stream --run-config run.toml
