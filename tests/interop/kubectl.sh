#!/usr/bin/env bash
# Runs the real kubectl against a started edgemesh-cloud and checks what it says.
#   tests/interop/kubectl.sh [path of edgemesh-cloud]      KUBECTL=kubectl
# Ports are free ones on loopback, state is in a temporary folder; both are gone afterwards.
set -u
cloud=${1:-${EDGEMESH_CLOUD:-build/dev/bin/edgemesh-cloud}}
KUBECTL=${KUBECTL:-kubectl}
command -v "$KUBECTL" >/dev/null || { echo "kubectl.sh: $KUBECTL is not installed" >&2; exit 2; }
[ -x "$cloud" ] || { echo "kubectl.sh: $cloud is not there: build edgemesh-cloud first" >&2; exit 2; }

dir=$(mktemp -d)
cloud_pid=
cleanup() {
  [ -n "$cloud_pid" ] && kill "$cloud_pid" 2>/dev/null && wait "$cloud_pid" 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT
export HOME=$dir KUBECONFIG=$dir/state/admin.kubeconfig

read -r api hub bootstrap admin < <(python3 - <<'PY'
import socket
socks = [socket.socket() for _ in range(4)]
for s in socks: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in socks])
PY
)

start_cloud() {
  "$cloud" --state-dir "$dir/state" --advertise 127.0.0.1 --listen-api "127.0.0.1:$api" \
    --listen-hub "127.0.0.1:$hub" --listen-bootstrap "127.0.0.1:$bootstrap" \
    --listen-admin "127.0.0.1:$admin" >>"$dir/cloud.log" 2>&1 &
  cloud_pid=$!
  for _ in $(seq 100); do
    "$KUBECTL" get --raw /readyz >/dev/null 2>&1 && return 0
    kill -0 "$cloud_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "kubectl.sh: edgemesh-cloud does not answer:" >&2
  cat "$dir/cloud.log" >&2
  exit 1
}

failed=0
passed=0
# expect PATTERN COMMAND...: the command's output (both streams) has a line that matches.
expect() {
  local pattern=$1 out
  shift
  out=$("$@" 2>&1)
  if grep -qE -- "$pattern" <<<"$out"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED: %s\n  want: %s\n  got:  %s\n' "$*" "$pattern" "$out"
  fi
}
# refuse PATTERN COMMAND...: the command fails, and says why.
refuse() {
  local pattern=$1
  shift
  if "$@" >/dev/null 2>&1; then
    failed=$((failed + 1))
    printf 'FAILED: %s\n  want: an error like %s\n  got:  success\n' "$*" "$pattern"
    return
  fi
  expect "$pattern" "$@"
}
k() { "$KUBECTL" "$@"; }
minor=$("$KUBECTL" version --client -o json 2>/dev/null | python3 -c '
import json, re, sys
print(re.sub("[^0-9].*", "", json.load(sys.stdin)["clientVersion"]["minor"]))')
left_out=0
# since MINOR CHECK...: what older kubectls cannot do, or do by means that a server need not have (OpenAPI v2,
# Endpoints objects).
since() {
  local needed=$1
  shift
  if [ "${minor:-0}" -ge "$needed" ]; then
    "$@"
  else
    left_out=$((left_out + 1))
    echo "needs kubectl 1.$needed, this is 1.$minor: ${*:2}"
  fi
}

mkdir -p "$dir/state"
start_cloud

cat >"$dir/web.yaml" <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.2.3], nodeName: n1}]
ports: [{name: http, port: 8080, protocol: TCP}]
YAML

# Discovery.
expect '^Server Version:.*v1\.' k version
expect '^services +svc +v1 +true +Service' k api-resources
expect '^endpointslices +discovery.k8s.io/v1' k api-resources
expect '^discovery.k8s.io/v1$' k api-versions
expect '^ok$' k get --raw /healthz
since 27 expect 'VERSION: +v1' k explain service
since 27 expect 'targetPort' k explain service.spec.ports
expect '^default +Active' k get namespaces

# apply, get in all forms, describe.
expect '^service/web created' k apply -f "$dir/web.yaml"
expect '^service/web unchanged' k apply -f "$dir/web.yaml"
expect '^NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE$' k get svc
expect '^web +ClusterIP +10\.[0-9.]+ +<none> +80/TCP .* app=web$' k get svc -o wide
expect '^web-1 +IPv4 +8080 +10\.1\.2\.3' k get endpointslices
expect '^  type: ClusterIP' k get svc web -o yaml
expect '"clusterIP": "10\.' k get svc web -o json
expect '^service/web$' k get svc -o name
expect '^8080$' k get svc web -o 'jsonpath={.spec.ports[0].targetPort}'
expect '^web$' k get svc -o 'go-template={{range .items}}{{.metadata.name}}{{end}}'
expect '^web +80' k get svc -o 'custom-columns=N:.metadata.name,P:.spec.ports[0].port'
expect '^default +web ' k get svc -A
since 31 expect 'Endpoints: +10\.1\.2\.3:8080' k describe svc web
sed -i 's/targetPort: 8080/targetPort: 9090/' "$dir/web.yaml"
expect '^service/web configured' k apply -f "$dir/web.yaml"
expect '^9090$' k get svc web -o 'jsonpath={.spec.ports[0].targetPort}'
expect '^service/web serverside-applied' k apply --server-side --force-conflicts -f "$dir/web.yaml"
since 21 expect 'operation: Apply' k get svc web -o yaml --show-managed-fields
since 27 expect 'targetPort: 7070' k diff -f <(sed 's/9090/7070/' "$dir/web.yaml")
since 27 expect '\(server dry run\)' k apply --dry-run=server -f "$dir/web.yaml"

# label, annotate, the three patches, edit, replace.
expect '^service/web labeled' k label svc web tier=front
expect '^web ' k get svc -l 'tier in (front),app=web'
expect 'No resources' k get svc -l tier=back
expect '^service/web annotated?$' k annotate svc web edgemesh.io/lb=random
expect '^service/web patched' k patch svc web -p '{"spec":{"ports":[{"port":443,"name":"tls"}]}}'
expect '80/TCP' k get svc web
expect '443/TCP' k get svc web
expect '^service/web patched' k patch svc web --type merge -p '{"metadata":{"labels":{"tier":null}}}'
expect '^service/web patched' k patch svc web --type json \
  -p '[{"op":"replace","path":"/spec/sessionAffinity","value":"ClientIP"}]'
expect '^10800$' k get svc web -o 'jsonpath={.spec.sessionAffinityConfig.clientIP.timeoutSeconds}'
cat >"$dir/editor" <<'SH'
#!/bin/sh
sed -i 's/sessionAffinity: ClientIP/sessionAffinity: None/; /sessionAffinityConfig/,/timeoutSeconds/d' "$1"
SH
chmod +x "$dir/editor"
expect '^service/web edited' env KUBE_EDITOR="$dir/editor" "$KUBECTL" edit svc web
expect '^None$' k get svc web -o 'jsonpath={.spec.sessionAffinity}'
k get svc web -o yaml >"$dir/old.yaml"
sed 's/edgemesh.io\/lb: random/edgemesh.io\/lb: least_request/' "$dir/old.yaml" >"$dir/new.yaml"
expect '^service/web replaced' k replace -f "$dir/new.yaml"
refuse 'the object has been modified' k replace -f "$dir/new.yaml"

# create and what is refused.
expect '^namespace/shop created' k create namespace shop
expect '^configmap/cm created' k -n shop create configmap cm --from-literal=a=b
expect '^secret/s created' k -n shop create secret generic s --from-literal=k=v
expect '^dg==$' k -n shop get secret s -o 'jsonpath={.data.k}'
expect '^service/hl created' k create service clusterip hl --clusterip=None --tcp=80:80
expect '^hl +ClusterIP +None' k get svc hl
expect '^service/ex created' k create service externalname ex --external-name example.com
expect '^ex +ExternalName +<none> +example.com' k get svc ex
expect '^service/np created' k create service nodeport np --tcp=80:80
expect '80:3[0-9]{4}/TCP' k get svc np
expect '^pod/p created' k run p --image=nginx
expect '^p +0/1 +Pending' k get pods
refuse 'already exists' k create namespace shop
refuse 'may not change once set' k patch svc web --type merge -p '{"spec":{"clusterIP":"10.96.0.7"}}'
refuse 'DNS-1035' k create service clusterip 1bad --tcp=80:80
sed 's/  ports:/  prots:/' "$dir/web.yaml" >"$dir/typo.yaml"
since 25 refuse 'unknown field "spec.prots"' k apply -f "$dir/typo.yaml"
refuse 'must be between 1 and 65535' k patch svc web -p '{"spec":{"ports":[{"port":70000,"name":"x"}]}}'
refuse 'NotFound' k get svc nothing
refuse 'namespaces "nowhere" not found' k -n nowhere create configmap x

# Kinds of all groups: made, changed, shown.
cat >"$dir/all.yaml" <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: dep}
spec:
  selector: {matchLabels: {app: dep}}
  template:
    metadata: {labels: {app: dep}}
    spec: {containers: [{name: c, image: "nginx:1", ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sts}
spec:
  serviceName: sts
  selector: {matchLabels: {app: sts}}
  template:
    metadata: {labels: {app: sts}}
    spec: {containers: [{name: c, image: nginx}]}
  volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, date]}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron}
spec:
  schedule: "*/5 * * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: busybox}]}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: pdb}
spec: {minAvailable: 1, selector: {matchLabels: {app: dep}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ing}
spec: {rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: role}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rb}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: role}
subjects: [{kind: User, name: alice}]
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: example.com/p
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: pvc}
spec: {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: "10"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {cpu: 100m}}]}
---
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: hpa}
spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: dep, apiVersion: apps/v1}}
YAML
since 27 expect '^deployment.apps/dep created' k apply -f "$dir/all.yaml"
since 27 expect '^horizontalpodautoscaler.autoscaling/hpa unchanged' k apply -f "$dir/all.yaml"
if [ "${minor:-0}" -ge 27 ]; then
  expect '^dep +0/1' k get deploy
  expect '^deployment.apps/dep scaled' k scale deployment dep --replicas=3
  expect '^dep +0/3' k get deploy
  expect '^deployment.apps/dep image updated' k set image deployment/dep c=nginx:2
  expect '^nginx:2$' k get deploy dep -o 'jsonpath={.spec.template.spec.containers[0].image}'
  expect '^deployment.apps/dep restarted' k rollout restart deployment dep
  expect '^RollingUpdate$' k get deploy dep -o 'jsonpath={.spec.strategy.type}'
  refuse 'field is immutable' k patch deploy dep -p '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}'
  cat >"$dir/bad.json" <<'JSON'
{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
 "template": {"metadata": {"labels": {"c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}
JSON
  refuse 'does not match template' k create -f "$dir/bad.json"
  expect '^sts +0/1' k get statefulset
  expect '^ds +0' k get ds
  expect '^job ' k get job
  expect '^cron +\*/5 \* \* \* \*' k get cronjob
  expect '^pvc +Pending' k get pvc
  expect '^fast +example.com/p' k get sc
  expect '^high ' k get priorityclass
  expect 'Pod Template' k describe deployment dep
  expect 'replicaset.apps|deployment.apps/dep' k get all
  expect 'FIELD: +backoffLimit' k explain job.spec.backoffLimit
  expect 'maxSurge' k explain deployment.spec.strategy.rollingUpdate
  expect 'batch.kubernetes.io/controller-uid' k get job job -o yaml
  expect '"dep" deleted' k delete deployment dep
  expect 'Forbidden|no PriorityClass' k run q --image=nginx --overrides='{"spec":{"priorityClassName":"none"}}'
fi
expect '^pod/evict created' k run evict --image=nginx
echo '{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evict"}}' >"$dir/eviction.json"
since 22 expect '"status":"Success"' k create --raw /api/v1/namespaces/default/pods/evict/eviction -f "$dir/eviction.json"
refuse 'NotFound' k get pod evict

# Server-side apply: conflicts and what is not applied any more.
ssa() {
  echo "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"ssa\"}, \"data\": $2}" >"$dir/ssa.json"
  k apply --server-side --field-manager="$1" -f "$dir/ssa.json" "${@:3}"
}
expect 'serverside-applied' ssa one '{"a":"1","b":"1"}'
refuse 'conflict with "one": .data.a' ssa two '{"a":"2"}'
expect 'serverside-applied' ssa two '{"a":"2"}' --force-conflicts
expect 'serverside-applied' ssa one '{}'
expect '^\{"a":"2"\}$' k get configmap ssa -o 'jsonpath={.data}'

# Custom resources.
cat >"$dir/crd.yaml" <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget, shortNames: [gd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}, {name: Age, type: date, jsonPath: .metadata.creationTimestamp}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How big it is.}
              mode: {type: string, enum: [fast, slow], default: fast}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
YAML
gadget() { printf 'apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g}\nspec: %s\n' "$1" >"$dir/gadget.yaml"; }
if [ "${minor:-0}" -ge 27 ]; then
  expect '^customresourcedefinition.apiextensions.k8s.io/gadgets.example.com created' k apply -f "$dir/crd.yaml"
  expect 'condition met' k wait --for=condition=Established crd/gadgets.example.com --timeout=5s
  gadget '{size: 3}'
  expect '^gadget.example.com/g created' k apply -f "$dir/gadget.yaml"
  expect '^gadget.example.com/g unchanged' k apply -f "$dir/gadget.yaml"
  gadget '{size: 4}'
  expect '^gadget.example.com/g configured' k apply -f "$dir/gadget.yaml"
  expect '^NAME +SIZE +AGE$' k get gd
  expect '^g +4 ' k get gadgets
  expect '^fast$' k get gd g -o 'jsonpath={.spec.mode}'
  expect 'How big it is' k explain gadget.spec.size
  expect '^gadget.example.com/g scaled' k scale gadget g --replicas=2
  expect '^g +2 ' k get gadgets
  expect 'serverside-applied' k apply --server-side --force-conflicts -f "$dir/gadget.yaml"
  gadget '{size: 0}'
  refuse 'should be greater than or equal to 1' k apply -f "$dir/gadget.yaml"
  gadget '{size: 1, oops: 2}'
  refuse 'unknown field "spec.oops"' k apply -f "$dir/gadget.yaml"
  expect 'gadgets.example.com" deleted' k delete crd gadgets.example.com
  refuse "doesn't have a resource type|could not find" k get gadgets
fi

# Bodies in protobuf (kubectl 1.32 and newer) say the same as kubectl's own JSON.
cat >"$dir/part.py" <<'PY'
import json, sys
def part(want, have, at=""):
    if want is None or want == {} or want == []:
        return []
    if isinstance(want, dict) and isinstance(have, dict):
        return [e for k, v in want.items() for e in part(v, have.get(k), at + "." + k)]
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [e for i, v in enumerate(want) for e in part(v, have[i], f"{at}[{i}]")]
    return [] if want == have else [f"{at}: {want!r} is not {have!r}"]
wrong = part(json.load(open(sys.argv[1])), json.load(open(sys.argv[2])))
print("\n".join(wrong) or "equal")
PY
same() {
  local kind=$1
  shift
  k create "$kind" --dry-run=client --output=json "$@" >"$dir/want.json" 2>"$dir/same.err" &&
    k create "$kind" --dry-run=server --output=json "$@" >"$dir/have.json" 2>>"$dir/same.err" &&
    python3 "$dir/part.py" "$dir/want.json" "$dir/have.json"
  cat "$dir/same.err"
}
if [ "${minor:-0}" -ge 27 ]; then
  expect '^equal$' same namespace pb
  expect '^equal$' same configmap pb --from-literal=a=b
  expect '^equal$' same secret generic pb --from-literal=k=v
  expect '^equal$' same secret docker-registry pb --docker-username=u --docker-password=p
  expect '^equal$' same serviceaccount pb
  expect '^equal$' same deployment pb --image=nginx --replicas=2 --port=80 -- sh -c x
  expect '^equal$' same job pb --image=busybox -- date
  expect '^equal$' same cronjob pb --image=busybox --schedule='1 2 * * *' -- date
  expect '^equal$' same service nodeport pb --tcp=80:8080
  expect '^equal$' same role pb --verb=get,list --resource=pods,deployments.apps
  expect '^equal$' same clusterrole pb --verb=get --non-resource-url=/metrics
  expect '^equal$' same rolebinding pb --role=pb --user=u --serviceaccount=default:d
  expect '^equal$' same quota pb --hard=pods=2,cpu=500m
  expect '^equal$' same priorityclass pb --value=10 --description=x
  expect '^equal$' same poddisruptionbudget pb --selector=a=b --min-available=50%
  expect '^equal$' same ingress pb --rule=a.example/x*=web:80
fi

# Who may what: roles and bindings, reviews, impersonation, tokens, and the words of refusals.
expect '^system:masters|system:masters' k auth whoami -o yaml
expect '^yes' k auth can-i '*' '*'
expect '^cluster-admin ' k get clusterroles
expect 'pods/log' k get clusterrole view -o yaml
expect 'ClusterRole/cluster-admin' k get clusterrolebindings cluster-admin
expect '^default ' k get serviceaccounts
expect 'kube-root-ca.crt' k get configmaps
expect '^serviceaccount/bot created' k create serviceaccount bot
expect '^role.rbac.authorization.k8s.io/reader created' k create role reader --verb=get,list --resource=services
expect '^rolebinding.rbac.authorization.k8s.io/reader created' k create rolebinding reader --role=reader \
  --serviceaccount=default:bot --user=jane
expect '^yes' k auth can-i list services --as jane
expect '^no' k auth can-i list secrets --as jane
refuse 'User "jane" cannot list resource "secrets" in API group "" in the namespace "default"' k get secrets --as jane
refuse 'services is forbidden: User "jane" cannot list resource "services" in API group "" at the cluster scope' \
  k get services -A --as jane
refuse 'cannot create resource "deployments" in API group "apps"' k create deployment d --image=i --as jane
expect '^services +\[\] +\[\] +\[get list\]' k auth can-i --list --as jane
cat >"$dir/grant.yaml" <<'YAML'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: granter}
rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [get, create, update]}]
YAML
expect 'created' k apply -f "$dir/grant.yaml"
expect 'created' k create rolebinding granter --clusterrole=granter --user=jane
refuse 'is attempting to grant RBAC permissions not currently held' k create role mine --verb=get --resource=secrets --as jane
refuse 'is attempting to grant RBAC permissions not currently held' k create rolebinding mine --clusterrole=admin \
  --user=jane --as jane
expect 'created' k create role same --verb=get --resource=services --as jane
# A user with a certificate's place taken by a token: the account is all that the token can do.
if [ "${minor:-0}" -ge 24 ]; then
  token=$(k create token bot)
  bot() { env KUBECONFIG="$dir/bot.kubeconfig" "$KUBECTL" "$@"; }
  server=$(k config view -o 'jsonpath={.clusters[0].cluster.server}')
  k config view --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$dir/ca.crt"
  env KUBECONFIG="$dir/bot.kubeconfig" "$KUBECTL" config set-cluster c --server="$server" --certificate-authority="$dir/ca.crt" >/dev/null
  env KUBECONFIG="$dir/bot.kubeconfig" "$KUBECTL" config set-credentials u --token="$token" >/dev/null
  env KUBECONFIG="$dir/bot.kubeconfig" "$KUBECTL" config set-context x --cluster=c --user=u >/dev/null
  env KUBECONFIG="$dir/bot.kubeconfig" "$KUBECTL" config use-context x >/dev/null
  since 28 expect 'system:serviceaccount:default:bot' bot auth whoami
  expect '^web ' bot get services
  refuse 'User "system:serviceaccount:default:bot" cannot list resource "pods"' bot get pods
  refuse 'cannot impersonate resource "users"' bot get services --as jane
  expect '"issuer":"https://kubernetes.default.svc' bot get --raw /.well-known/openid-configuration
  expect '"crv":"P-256"' bot get --raw /openid/v1/jwks
  printf '{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{"token":"%s"}}' "$token" >"$dir/review.json"
  expect '"authenticated":true' k create --raw /apis/authentication.k8s.io/v1/tokenreviews -f "$dir/review.json"
  refuse 'may not specify a duration less than 10 minutes' k create token bot --duration=1m
  refuse 'serviceaccounts "none" not found' k create token none
  expect '^serviceaccount "bot" deleted' k delete serviceaccount bot
  refuse 'You must be logged in|Unauthorized|provide credentials' bot get services
fi
anonymous() { curl -sk --max-time 5 "https://127.0.0.1:$api$1"; }
expect '"gitVersion"' anonymous /version
expect 'system:anonymous.* cannot list resource' anonymous /api/v1/pods
expect '"reason": *"Unauthorized"' curl -sk --max-time 5 -H 'Authorization: Bearer x.y.z' "https://127.0.0.1:$api/api/v1/pods"

# watch.
timeout 20 "$KUBECTL" get svc -w >"$dir/watch.log" 2>&1 &
watch_pid=$!
for _ in $(seq 50); do grep -q '^web ' "$dir/watch.log" && break; sleep 0.1; done
k create service clusterip later --tcp=81:81 >/dev/null
for _ in $(seq 50); do grep -q '^later ' "$dir/watch.log" && break; sleep 0.1; done
expect '^later +ClusterIP .* 81/TCP' cat "$dir/watch.log"
kill "$watch_pid" 2>/dev/null
wait "$watch_pid" 2>/dev/null

# A restart keeps everything.
kill "$cloud_pid"
wait "$cloud_pid" 2>/dev/null
start_cloud
expect '^web +ClusterIP' k get svc web

# delete and wait.
since 23 expect 'condition met' k wait --for=jsonpath='{.status.phase}'=Active ns/shop --timeout=5s
since 31 expect 'condition met' env KUBE_FEATURE_WatchListClient=true "$KUBECTL" wait --for=jsonpath='{.status.phase}'=Active \
  ns/shop --timeout=5s
expect 'service "later" deleted' k delete svc later
expect 'namespace "shop" deleted' k delete namespace shop --timeout=20s
refuse 'NotFound' k get namespace shop
expect 'pod "p" (force )?deleted' k delete pod p --force
expect 'service "web" deleted' k delete -f "$dir/web.yaml"
expect 'deleted' k delete svc --all
expect 'No resources' k get svc

echo "kubectl.sh: $passed passed, $failed failed, $left_out left out ($("$KUBECTL" version 2>/dev/null | head -1))"
[ "$failed" -eq 0 ]
