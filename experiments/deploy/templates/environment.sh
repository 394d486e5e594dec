# Read by the scripts beside this folder, which have set $here to theirs.
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export FLWR_HOME="$here/server/flower"
command -v flower-superlink >/dev/null || {
    echo "activate fednf's environment first: source .venv/bin/activate" >&2
    exit 1
}
mkdir -p "$FLWR_HOME"
cat >"$FLWR_HOME/config.toml" <<END
[superlink]
default = "fednf"

[superlink.fednf]
address = "@local:@port"
root-certificates = "$here/server/ca.pem"
END
