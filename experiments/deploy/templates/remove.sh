#!/bin/sh
# Shuts devices out whose numbers are given, for good: their keys are refused from now on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
for number in "$@@"; do
    key="$here/server/keys/device-$number"
    node=$(sed -n 's/[^0-9]*"node-id": *\([0-9]*\).*/\1/p' "$key.json")
    said=$(flwr supernode unregister "$node" fednf --format json)
    case $said in
    *'"success": true'*)
        rm -f "$key.json" "$key.pub"
        echo "device $number is shut out"
        ;;
    *)
        echo "$said" >&2
        exit 1
        ;;
    esac
done
