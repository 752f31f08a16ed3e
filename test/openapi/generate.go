// Package openapi holds the OpenAPI document of the service and, in client, what oapi-codegen makes of
// it. The tests of internal/http hold both against the running service.
package openapi

//go:generate go tool -modfile=../../tools/go.mod oapi-codegen -config client.yaml -o client/client.gen.go openapi.json
