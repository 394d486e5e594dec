#!/bin/sh
# Stops the run whose number is given; without a number, says which runs there are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
if [ $# -eq 0 ]; then
    flwr list fednf
    echo "then: $0 RUN_ID" >&2
    exit 2
fi
exec flwr stop "$1" fednf
