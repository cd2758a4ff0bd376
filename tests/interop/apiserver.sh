#!/usr/bin/env bash
# Runs edgemesh-cloud and an agent against a real kube-apiserver, in place of the embedded API.
#   tests/interop/apiserver.sh [folder of our programs]     default: build/release/bin
# kube-apiserver and etcd are built from their Go modules, by name, into ~/.cache/edgemesh-interop (ten
# minutes the first time; KUBERNETES=1.34.4 and ETCD=3.6.16 choose the versions). Needs go and kubectl.
# Everything listens on free ports of loopback; state is in a temporary folder; both are gone afterwards.
set -u
bin=${1:-build/release/bin}
KUBERNETES=${KUBERNETES:-1.34.4}
ETCD=${ETCD:-3.6.16}
KUBECTL=${KUBECTL:-kubectl}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgemesh-interop
for tool in go openssl python3 "$KUBECTL"; do
  command -v "$tool" >/dev/null || { echo "apiserver.sh: $tool is not installed" >&2; exit 2; }
done
for program in edgemesh edgemesh-agent edgemesh-cloud; do
  [ -x "$bin/$program" ] || { echo "apiserver.sh: $bin/$program is not there: scripts/build release" >&2; exit 2; }
done

build_apiserver() {
  local work=$cache/kubernetes-$KUBERNETES staging=0.${KUBERNETES#1.} mod
  [ -x "$cache/kube-apiserver-$KUBERNETES" ] && return
  mkdir -p "$work"
  mod=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | python3 -c 'import json,sys; print(json.load(sys.stdin)["GoMod"])') || return
  {
    echo "module edgemesh.interop/apiserver"
    grep -m1 '^go ' "$mod"
    echo "require k8s.io/kubernetes v$KUBERNETES"
    # The module says where its parts lie in its own source tree; outside they have versions.
    grep -oE 'k8s\.io/[a-z-]+ v0\.0\.0($| )' "$mod" | sort -u | while read -r name _; do
      echo "replace $name => $name v$staging"
    done
  } >"$work/go.mod"
  cat >"$work/main.go" <<'GO'
// Keeps the module in go.mod.
package main

import _ "k8s.io/kubernetes/cmd/kube-apiserver/app"

func main() {}
GO
  (cd "$work" && go mod tidy >tidy.log 2>&1 && CGO_ENABLED=0 nice go build -o "$cache/kube-apiserver-$KUBERNETES" \
    k8s.io/kubernetes/cmd/kube-apiserver) || { tail -5 "$work/tidy.log" >&2; return 1; }
}

build_etcd() {
  [ -x "$cache/etcd-$ETCD" ] && return
  local work=$cache/etcd-src-$ETCD
  mkdir -p "$work"
  printf 'package main\n\nimport "go.etcd.io/etcd/server/v3/etcdmain"\nimport "os"\n\nfunc main() { etcdmain.Main(os.Args) }\n' >"$work/main.go"
  (cd "$work" && { [ -f go.mod ] || go mod init edgemesh.interop/etcd; } && go get "go.etcd.io/etcd/server/v3@v$ETCD" &&
    go mod tidy && CGO_ENABLED=0 nice go build -o "$cache/etcd-$ETCD" .) >"$work.log" 2>&1 || { tail -5 "$work.log" >&2; return 1; }
}

mkdir -p "$cache"
echo "building etcd $ETCD and kube-apiserver $KUBERNETES (when they are not there)"
build_etcd && build_apiserver || { echo "apiserver.sh: the peers cannot be built" >&2; exit 2; }
[ -z "${BUILD_ONLY:-}" ] || exit 0

dir=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
  rm -rf "$dir"
}
trap cleanup EXIT
read -r etcd_client etcd_peer api hub bootstrap cloud_admin agent_admin < <(python3 - <<'PY'
import socket
socks = [socket.socket() for _ in range(7)]
for s in socks: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in socks])
PY
)
passed=0
failed=0
verdict() {  # verdict TEXT CODE
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1"; fi
}
# until_true SECONDS COMMAND...
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

"$cache/etcd-$ETCD" --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$etcd_client" \
  --advertise-client-urls "http://127.0.0.1:$etcd_client" --listen-peer-urls "http://127.0.0.1:$etcd_peer" \
  --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer" --initial-cluster "default=http://127.0.0.1:$etcd_peer" \
  --unsafe-no-fsync >"$dir/etcd.log" 2>&1 &
pids+=($!)
openssl genrsa -out "$dir/sa.key" 2048 2>/dev/null
openssl rsa -in "$dir/sa.key" -pubout -out "$dir/sa.pub" 2>/dev/null
echo "cloud-token,edgemesh-cloud,1,system:masters" >"$dir/tokens.csv"
"$cache/kube-apiserver-$KUBERNETES" --etcd-servers "http://127.0.0.1:$etcd_client" --bind-address 127.0.0.1 \
  --advertise-address 127.0.0.1 --secure-port "$api" --cert-dir "$dir/apiserver" --token-auth-file "$dir/tokens.csv" \
  --authorization-mode RBAC --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://edgemesh.test \
  --service-account-key-file "$dir/sa.pub" --service-account-signing-key-file "$dir/sa.key" \
  --disable-admission-plugins ServiceAccount >"$dir/apiserver.log" 2>&1 &
pids+=($!)
cat >"$dir/kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api", certificate-authority: "$dir/apiserver/apiserver.crt"}}]
users: [{name: u, user: {token: cloud-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
YAML
export KUBECONFIG=$dir/kubeconfig HOME=$dir
if ! until_true 60 "$KUBECTL" get --raw /readyz; then
  echo "apiserver.sh: kube-apiserver does not answer:" >&2
  tail -20 "$dir/apiserver.log" >&2
  exit 1
fi
until_true 20 "$KUBECTL" get namespace default
verdict "kube-apiserver $("$KUBECTL" get --raw /version | python3 -c 'import json,sys; print(json.load(sys.stdin)["gitVersion"])') answers" $?

"$bin/edgemesh-cloud" --kubeconfig "$dir/kubeconfig" --state-dir "$dir/cloud" --advertise 127.0.0.1 \
  --listen-hub "127.0.0.1:$hub" --listen-bootstrap "127.0.0.1:$bootstrap" --listen-admin "127.0.0.1:$cloud_admin" \
  >"$dir/cloud.log" 2>&1 &
pids+=($!)
until_true 20 test -s "$dir/cloud/join-token"
verdict "edgemesh-cloud --kubeconfig starts" $?

"$KUBECTL" apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: default}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hello-1, namespace: default, labels: {kubernetes.io/service-name: hello}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.7], nodeName: edge-1, conditions: {ready: true}}]
ports: [{name: http, port: 8080}]
YAML

"$bin/edgemesh" join --cloud "127.0.0.1:$bootstrap" --hub-port "$hub" --token "$(cat "$dir/cloud/join-token")" \
  --node edge-1 --state-dir "$dir/agent" --config "$dir/agent.yaml" >"$dir/join.log" 2>&1
verdict "edgemesh join" $?
cat >>"$dir/agent.yaml" <<YAML
capture: {enable: false}
dns: {enable: false}
p2p: {enable: false}
admin: {listen: "127.0.0.1:$agent_admin"}
YAML
"$bin/edgemesh-agent" --config "$dir/agent.yaml" --state-dir "$dir/agent" >"$dir/agent.log" 2>&1 &
pids+=($!)

services() { python3 - "$agent_admin" <<'PY'
import json, sys, urllib.request
print(json.dumps(json.load(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/services", timeout=2))))
PY
}
knows() { services | grep -q -- "$1"; }
knows_not() { ! services | grep -q -- "$1"; }
until_true 15 knows 192.0.2.7
verdict "a service and its endpoint reach the agent" $?
until_true 15 sh -c "'$KUBECTL' get node edge-1 -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status}' | grep -q True"
verdict "the node is there and Ready" $?
until_true 15 "$KUBECTL" -n kube-node-lease get lease edge-1
verdict "its lease is kept" $?
"$KUBECTL" patch endpointslice hello-1 --type merge -p '{"endpoints":[{"addresses":["192.0.2.8"],"nodeName":"edge-1","conditions":{"ready":true}}]}' >/dev/null
until_true 10 knows 192.0.2.8
verdict "a change reaches the agent" $?
"$KUBECTL" delete service hello >/dev/null
until_true 10 knows_not '"hello"'
verdict "a deletion reaches the agent" $?

kill "${pids[2]}"
wait "${pids[2]}" 2>/dev/null
"$KUBECTL" create service clusterip later --tcp=80:8080 >/dev/null
"$bin/edgemesh-cloud" --kubeconfig "$dir/kubeconfig" --state-dir "$dir/cloud" --advertise 127.0.0.1 \
  --listen-hub "127.0.0.1:$hub" --listen-bootstrap "127.0.0.1:$bootstrap" --listen-admin "127.0.0.1:$cloud_admin" \
  >>"$dir/cloud.log" 2>&1 &
pids+=($!)
until_true 40 knows '"later"'
verdict "what was made while the cloud was away arrives after its restart" $?

if [ $failed -gt 0 ]; then
  for log in cloud agent join; do echo "--- $log"; tail -15 "$dir/$log.log"; done
  "$KUBECTL" get nodes,services,endpointslices -A
fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
