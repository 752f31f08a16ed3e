// Command constant is yardstick E: net/http writing a document of 700 bytes.
package main

import (
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	document := []byte(`{"profile":"` + strings.Repeat("x", 686) + `"}`)
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	})))
}
