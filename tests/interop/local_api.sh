#!/usr/bin/env bash
# A client-go program against the API of a node, while the cloud is killed and comes back.
#   tests/interop/local_api.sh [folder of our programs]     default: build/release/bin
# The program (client-go/main.go) is built from Go modules into ~/.cache/edgemesh-interop;
# CLIENT_GO=0.34.4 chooses the library's version. Needs go, python3, kubectl and root (an agent without capture
# of traffic still opens its sockets). Everything listens on free ports of loopback.
set -u
cd "$(dirname "$0")/../.." || exit 2
bin=$(realpath "${1:-build/release/bin}")
CLIENT_GO=${CLIENT_GO:-0.34.4}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgemesh-interop
for tool in go python3 kubectl; do
  command -v "$tool" >/dev/null || { echo "local_api.sh: $tool is not installed" >&2; exit 2; }
done
work=$cache/client-go-$CLIENT_GO
mkdir -p "$work"
if [ ! -x "$work/probe" ] || [ tests/interop/client-go/main.go -nt "$work/probe" ]; then
  cp tests/interop/client-go/main.go "$work/"
  (cd "$work" && { [ -f go.mod ] || go mod init edgemesh.interop/clientgo; } &&
    go get "k8s.io/client-go@v$CLIENT_GO" "k8s.io/api@v$CLIENT_GO" "k8s.io/apimachinery@v$CLIENT_GO" &&
    go mod tidy && CGO_ENABLED=0 nice go build -o probe .) >"$work/build.log" 2>&1 ||
    { tail -5 "$work/build.log" >&2; exit 2; }
fi
[ -z "${BUILD_ONLY:-}" ] || exit 0
exec python3 tests/interop/local_api.py "$bin" "$work/probe"
