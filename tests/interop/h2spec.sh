#!/usr/bin/env bash
# Runs h2spec, a conformance test of HTTP/2 servers, against the proxy's codec. Every case must pass.
#   tests/interop/h2spec.sh [server]      default: build/release/tests/interop/interop_h2_server
#   H2SPEC_ADDR=host:port                 another server that runs already, in place of ours
# h2spec is installed by name with go into ~/.cache/edgemesh-interop (H2SPEC=2.2.1 chooses the version).
# The server listens on a free port of loopback and is gone afterwards.
set -u
server=${1:-build/release/tests/interop/interop_h2_server}
version=${H2SPEC:-2.2.1}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgemesh-interop
h2spec=$cache/h2spec-$version
if [ ! -x "$h2spec" ]; then
  command -v go >/dev/null || { echo "h2spec.sh: go is not installed" >&2; exit 2; }
  mkdir -p "$cache/go-bin"
  GOBIN=$cache/go-bin go install "github.com/summerwind/h2spec/cmd/h2spec@v$version+incompatible" >"$cache/h2spec.log" 2>&1 &&
    mv "$cache/go-bin/h2spec" "$h2spec" || { tail -5 "$cache/h2spec.log" >&2; exit 2; }
fi
if [ -z "${H2SPEC_ADDR:-}" ]; then
  [ -x "$server" ] || { echo "h2spec.sh: $server is not there: build interop_h2_server" >&2; exit 2; }
fi

dir=$(mktemp -d)
pid=
cleanup() {
  exec 3>&-  # the server ends with its input
  [ -n "$pid" ] && wait "$pid" 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT

if [ -n "${H2SPEC_ADDR:-}" ]; then
  host=${H2SPEC_ADDR%:*}
  port=${H2SPEC_ADDR##*:}
else
  mkfifo "$dir/stdin"
  "$server" <"$dir/stdin" >"$dir/port" 2>"$dir/server.log" &
  pid=$!
  exec 3>"$dir/stdin"
  for _ in $(seq 100); do
    [ -s "$dir/port" ] && break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  host=127.0.0.1
  port=$(cat "$dir/port")
  [ -n "$port" ] || { echo "h2spec.sh: the server does not start:" >&2; cat "$dir/server.log" >&2; exit 1; }
fi

"$h2spec" --strict --timeout 3 -h "$host" -p "$port" >"$dir/result" 2>&1
code=$?
summary=$(tail -1 "$dir/result")
case $summary in
  *" 0 skipped, 0 failed") ;;
  *) code=1 ;;
esac
if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
  echo "h2spec.sh: the server died:"
  cat "$dir/server.log"
  code=1
fi
[ "$code" -eq 0 ] || sed -n '/^Failures/,$p' "$dir/result"
echo "h2spec $version: $summary"
exit "$code"
