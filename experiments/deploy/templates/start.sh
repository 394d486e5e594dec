#!/bin/sh
# Starts this device; it connects, and connects again whenever the server was away.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_HOME="$here/flower"
PATH="$here/.venv/bin:$PATH"
superlink=${SUPERLINK:-@host:@port}
mkdir -p "$FLWR_HOME"
cd "$FLWR_HOME"
python "$here/preflight.py" "$superlink"
exec flower-supernode --superlink "$superlink" --port "${PORT:-@own_port}" \
    --root-certificates "$here/ca.pem" --auth-supernode-private-key "$here/device.key" \
    --node-config "partition-id=@number num-partitions=@clients data-path=\"$here/data\""
