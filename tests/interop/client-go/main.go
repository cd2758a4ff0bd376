// Reads a node's API as any program on the node would: client-go's typed client and shared informers,
// no credentials. Prints one JSON object a line:
//
//	{"list": {"pods": 1, ...}}            what a first list had
//	{"event": "add", "kind": "ConfigMap", "name": "x", "value": "v"}
//	{"synced": true}                      all informers have their first state
//	{"write": "ok"} or {"write": "ServiceUnavailable"}   for each line "write" on the input
//	{"read": 3}                           config maps that a list has, for each line "read"
//
// It ends at the end of its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func say(line map[string]any) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func check(err error) {
	if err != nil {
		say(map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}

func main() {
	server, node := os.Args[1], os.Args[2]
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server, Timeout: 0})
	check(err)
	ctx := context.Background()
	core := client.CoreV1()
	maps, err := core.ConfigMaps("").List(ctx, metav1.ListOptions{})
	check(err)
	services, err := core.Services("").List(ctx, metav1.ListOptions{})
	check(err)
	say(map[string]any{"list": map[string]any{"configmaps": len(maps.Items), "services": len(services.Items)}})

	factory := informers.NewSharedInformerFactory(client, 0)
	tell := func(event string, object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		switch o := object.(type) {
		case *corev1.ConfigMap:
			say(map[string]any{"event": event, "kind": "ConfigMap", "name": o.Name, "value": o.Data["key"]})
		case *corev1.Service:
			say(map[string]any{"event": event, "kind": "Service", "name": o.Name})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { tell("add", o) },
		UpdateFunc: func(_, o any) { tell("update", o) },
		DeleteFunc: func(o any) { tell("delete", o) },
	}
	_, err = factory.Core().V1().ConfigMaps().Informer().AddEventHandler(handler)
	check(err)
	_, err = factory.Core().V1().Services().Informer().AddEventHandler(handler)
	check(err)
	stop := make(chan struct{})
	factory.Start(stop)
	synced := factory.WaitForCacheSync(stop)
	all := true
	for _, one := range synced {
		all = all && one
	}
	say(map[string]any{"synced": all})

	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		switch input.Text() {
		case "write":
			patch := fmt.Sprintf(`{"metadata":{"annotations":{"probe":"%d"}}}`, time.Now().UnixNano())
			_, err := core.Nodes().Patch(ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			result := "ok"
			if err != nil {
				result = string(apierrors.ReasonForError(err))
				if result == "" {
					result = err.Error()
				}
			}
			say(map[string]any{"write": result})
		case "read":
			maps, err := core.ConfigMaps("").List(ctx, metav1.ListOptions{})
			check(err)
			say(map[string]any{"read": len(maps.Items)})
		}
	}
	close(stop)
	factory.Shutdown()
}
