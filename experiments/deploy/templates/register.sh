#!/bin/sh
# Lets devices in: all of them, or those whose numbers are given. Again does no harm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/server/environment.sh"
if [ $# -eq 0 ]; then
    set -- $(seq 0 @last)
fi
for number in "$@@"; do
    key="$here/server/keys/device-$number"
    [ -f "$key.pub" ] || continue # it was removed
    said=$(flwr supernode register "$key.pub" fednf --name "device-$number" --format json)
    case $said in
    *'"success": true'*)
        echo "$said" >"$key.json.part" && mv "$key.json.part" "$key.json"
        echo "device $number is registered"
        ;;
    *"already in use"*) echo "device $number was registered already" ;;
    *)
        echo "$said" >&2
        exit 1
        ;;
    esac
done
