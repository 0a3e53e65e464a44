// Package webhooks carries one example of every kind of notification that the Cloud
// API posts: a webhook body a file, named field[.what].json, for changes of field
// messages message.type, status.word or errors. The values are made up; phone
// numbers are of ranges reserved for fiction. Each is of a WABA of its own.
package webhooks

import (
	"embed"
	"fmt"
	"strings"
)

// Files holds the examples.
//
//go:embed *.json
var Files embed.FS

// Example is one notification as Meta would post it.
type Example struct {
	Name string // the file's name without .json
	Body []byte
}

// All gives every example, by name. It fails only if an embedded file cannot be read.
func All() ([]Example, error) {
	entries, err := Files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("listing the example notifications: %w", err)
	}
	all := make([]Example, 0, len(entries))
	for _, e := range entries {
		body, err := Files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading example notification %s: %w", e.Name(), err)
		}
		all = append(all, Example{Name: strings.TrimSuffix(e.Name(), ".json"), Body: body})
	}
	return all, nil
}
