// Package openapi holds the description of the update server's REST interface in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html), which is served at
// /api/v1/openapi.json. Package document makes it; a test compares.
package openapi

import _ "embed"

//go:generate go run ./generate openapi.json

// Document is openapi.json.
//
//go:embed openapi.json
var Document []byte
