// Package messages carries one example of every kind of message that the Cloud
// API sends: a message object a file, named type.subtype[.variant].json. The
// values are made up; phone numbers are of ranges reserved for fiction.
package messages

import (
	"embed"
	"fmt"
	"strings"
)

// Files holds the examples.
//
//go:embed *.json
var Files embed.FS

// Example is one message as a client of the Cloud API would post it.
type Example struct {
	Name string // the file's name without .json
	Body []byte
}

// All gives every example, by name. It fails only if an embedded file cannot be read.
func All() ([]Example, error) {
	entries, err := Files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("listing the example messages: %w", err)
	}
	all := make([]Example, 0, len(entries))
	for _, e := range entries {
		body, err := Files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading example message %s: %w", e.Name(), err)
		}
		all = append(all, Example{Name: strings.TrimSuffix(e.Name(), ".json"), Body: body})
	}
	return all, nil
}
