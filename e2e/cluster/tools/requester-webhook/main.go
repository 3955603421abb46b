// requester-webhook replaces cert-manager's admission webhook on Kubernetes below 1.36, which has no MutatingAdmissionPolicy: it writes
// into each CertificateRequest who made it, and overwrites what the maker wrote there.
//
//	requester-webhook 127.0.0.1:10391 webhook.crt webhook.key
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
)

// The fields of an AdmissionReview (admission.k8s.io/v1) that are read.
type review struct {
	Request struct {
		UID      string `json:"uid"`
		UserInfo struct {
			Username string              `json:"username"`
			UID      string              `json:"uid"`
			Groups   []string            `json:"groups"`
			Extra    map[string][]string `json:"extra"`
		} `json:"userInfo"`
	} `json:"request"`
}

// One operation of a JSON Patch (RFC 6902). `add` also replaces.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: requester-webhook ADDRESS CERTIFICATE KEY")
	}
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/mutate", mutate)
	log.Fatal(http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], nil))
}

func mutate(w http.ResponseWriter, r *http.Request) {
	var asked review
	if err := json.NewDecoder(io.LimitReader(r.Body, 8<<20)).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	user := asked.Request.UserInfo
	if user.Groups == nil {
		user.Groups = []string{}
	}
	if user.Extra == nil {
		user.Extra = map[string][]string{}
	}
	patch, err := json.Marshal([]operation{
		{"add", "/spec/username", user.Username},
		{"add", "/spec/uid", user.UID},
		{"add", "/spec/groups", user.Groups},
		{"add", "/spec/extra", user.Extra},
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// Go writes a []byte as base64, which is how an AdmissionReview has its patch.
	err = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "admission.k8s.io/v1",
		"kind":       "AdmissionReview",
		"response":   map[string]any{"uid": asked.Request.UID, "allowed": true, "patchType": "JSONPatch", "patch": patch},
	})
	if err != nil {
		log.Print(err)
	}
}
