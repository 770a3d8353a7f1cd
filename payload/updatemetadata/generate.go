// Package updatemetadata holds the protobuf messages of an update payload, generated from update_metadata.proto, which documents them.
// Package payload reads and writes them; nothing else should need to.
package updatemetadata

//go:generate go build -o ../../bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=../../bin/protoc-gen-go --go_out=. --go_opt=paths=source_relative update_metadata.proto
