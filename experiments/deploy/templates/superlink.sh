#!/bin/sh
# Starts the server: TLS, and only devices whose keys are registered.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
cd "$FLWR_HOME"
exec python -m experiments.deploy.superlink --host @bind --port @port \
    --ssl-ca-certfile "$here/server/ca.pem" \
    --ssl-certfile "$here/server/server.pem" --ssl-keyfile "$here/server/server.key" \
    --enable-supernode-auth --disable-runtime-dependency-installation \
    --database "$here/server/state.db"
