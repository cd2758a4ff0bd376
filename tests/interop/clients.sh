#!/bin/bash
# Real clients and servers with the L7 proxy between them. Installs what they need by name, then runs each
# case; prints "N passed, M failed". Without root: everything is on the loopback.
#
#   tests/interop/clients.sh [WORD...]     only the cases whose names contain a word
#   EDGEMESH_BUILD=build/release           where bin/edgemesh-proxy is
#   EDGEMESH_INTEROP_CACHE=DIR             where npm and pip packages go (~/.cache/edgemesh-interop)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export EDGEMESH_INTEROP_CACHE=${EDGEMESH_INTEROP_CACHE:-$HOME/.cache/edgemesh-interop}

declare -A package=([curl]=curl [nginx]=nginx [haproxy]=haproxy [h2load]=nghttp2-client [nghttp]=nghttp2-client
                    [nghttpd]=nghttp2-server [chromium]=chromium [node]=nodejs [npm]=npm [openssl]=openssl)
missing=()
for tool in "${!package[@]}"; do
  command -v "$tool" > /dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("${package[$tool]}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${missing[@]}" > /dev/null
  else
    echo "these packages are missing: ${missing[*]}" >&2
    exit 2
  fi
fi

mkdir -p "$EDGEMESH_INTEROP_CACHE/npm"
(
  cd "$EDGEMESH_INTEROP_CACHE/npm"
  [ -f package.json ] || npm init -y > /dev/null
  for name in @grpc/grpc-js @grpc/proto-loader ws autocannon; do
    [ -d "node_modules/$name" ] || npm install --no-audit --no-fund --loglevel=error "$name" > /dev/null
  done
)
export NODE_PATH="$EDGEMESH_INTEROP_CACHE/npm/node_modules" PYTHONDONTWRITEBYTECODE=1
export PATH="$PATH:/usr/sbin"
exec python3 "$here/${EDGEMESH_INTEROP_RUN:-clients}.py" "$@"
