#!/bin/sh
# Lets devices in: all of them, or those whose numbers are given. Again does no harm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
if [ $# -eq 0 ]; then
    set -- $(seq 0 @last)
fi
for number in "$@@"; do
    key="$here/server/keys/device-$number.pub"
    if said=$(flwr supernode register "$key" fednf --name "device-$number" 2>&1); then
        echo "device $number is registered"
    elif [ "${said#*already in use}" != "$said" ]; then
        echo "device $number was registered already"
    else
        echo "$said" >&2
        exit 1
    fi
done
