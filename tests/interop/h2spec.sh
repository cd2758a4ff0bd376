#!/usr/bin/env bash
# Runs h2spec, a conformance test of HTTP/2 servers, against the proxy's codec, and then against
# edgemesh-proxy with that server behind it. Every case must pass.
#   tests/interop/h2spec.sh [server [proxy]]      default: build/release/tests/interop/interop_h2_server
#                                                 and build/release/bin/edgemesh-proxy; "-": no proxy
#   H2SPEC_ADDR=host:port                 another server that runs already, in place of ours
# h2spec is installed by name with go into ~/.cache/edgemesh-interop (H2SPEC=2.2.1 chooses the version).
# All listen on free ports of loopback and are gone afterwards.
set -u
server=${1:-build/release/tests/interop/interop_h2_server}
proxy=${2:-build/release/bin/edgemesh-proxy}
version=${H2SPEC:-2.2.1}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgemesh-interop
h2spec=$cache/h2spec-$version
if [ ! -x "$h2spec" ]; then
  command -v go >/dev/null || { echo "h2spec.sh: go is not installed" >&2; exit 2; }
  mkdir -p "$cache/go-bin"
  GOBIN=$cache/go-bin go install "github.com/summerwind/h2spec/cmd/h2spec@v$version+incompatible" >"$cache/h2spec.log" 2>&1 &&
    mv "$cache/go-bin/h2spec" "$h2spec" || { tail -5 "$cache/h2spec.log" >&2; exit 2; }
fi

dir=$(mktemp -d)
server_pid=
proxy_pid=
cleanup() {
  [ -n "$proxy_pid" ] && kill "$proxy_pid" 2>/dev/null && wait "$proxy_pid" 2>/dev/null
  exec 3>&-  # the server ends with its input
  [ -n "$server_pid" ] && wait "$server_pid" 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT
failed=0

run() {  # run NAME HOST PORT [PID LOG]
  local summary code
  "$h2spec" --strict --timeout 3 -h "$2" -p "$3" >"$dir/result" 2>&1
  code=$?
  summary=$(tail -1 "$dir/result")
  case $summary in
    *" 0 skipped, 0 failed") ;;
    *) code=1 ;;
  esac
  if [ -n "${4:-}" ] && ! kill -0 "$4" 2>/dev/null; then
    echo "h2spec.sh: $1 died:"
    tail -20 "$5"
    code=1
  fi
  if [ "$code" -ne 0 ]; then
    sed -n '/^Failures/,$p' "$dir/result"
    failed=1
  fi
  echo "$1, h2spec $version: $summary"
}

if [ -n "${H2SPEC_ADDR:-}" ]; then
  run "$H2SPEC_ADDR" "${H2SPEC_ADDR%:*}" "${H2SPEC_ADDR##*:}"
  exit "$failed"
fi

[ -x "$server" ] || { echo "h2spec.sh: $server is not there: build interop_h2_server" >&2; exit 2; }
mkfifo "$dir/stdin"
"$server" <"$dir/stdin" >"$dir/port" 2>"$dir/server.log" &
server_pid=$!
exec 3>"$dir/stdin"
for _ in $(seq 100); do
  [ -s "$dir/port" ] && break
  kill -0 "$server_pid" 2>/dev/null || break
  sleep 0.1
done
port=$(cat "$dir/port")
[ -n "$port" ] || { echo "h2spec.sh: the server does not start:" >&2; cat "$dir/server.log" >&2; exit 1; }
run "codec" 127.0.0.1 "$port" "$server_pid" "$dir/server.log"
[ "$proxy" != - ] || exit "$failed"

[ -x "$proxy" ] || { echo "h2spec.sh: $proxy is not there: build edgemesh-proxy" >&2; exit 2; }
front=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/proxy.yaml" <<YAML
listeners:
- name: front
  address: 127.0.0.1:$front
  chains: [{http: {routes: all, codec: http2}}]
routes:
- name: all
  hosts: [{name: any, domains: ["*"], routes: [{match: {prefix: /}, cluster: server}]}]
clusters:
- name: server
  protocol: http2
  endpoints: [{address: "127.0.0.1:$port"}]
YAML
"$proxy" --config "$dir/proxy.yaml" --admin "" --workers 1 3>&- >"$dir/proxy.log" 2>&1 &
proxy_pid=$!
for _ in $(seq 100); do
  python3 -c "import socket; socket.create_connection(('127.0.0.1', $front)).close()" 2>/dev/null && break
  kill -0 "$proxy_pid" 2>/dev/null || break
  sleep 0.1
done
run "edgemesh-proxy" 127.0.0.1 "$front" "$proxy_pid" "$dir/proxy.log"
exit "$failed"
