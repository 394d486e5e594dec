#!/bin/sh
# Runs the experiment of run.toml into run/, or goes on with it after an interruption.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
{
    cat "$here/run.toml"
    echo "run.dir = \"$here/run\""
    echo "run.resume = true"
} >"$FLWR_HOME/run.toml"
exec flwr run "${FEDNF:-@source}" fednf --stream --run-config "$FLWR_HOME/run.toml"
