package content_test

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wagate/internal/content"
)

// sharedCases is where a collection of real payloads lies, on machines that have it.
var sharedCases = filepath.Join("..", "..", "..", "shared", "cases", "messages")

// readShared gives the bodies of a folder of the collection; nil, said in the log, where there is none.
func readShared(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	dir := filepath.Join(sharedCases, folder)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("the payload collection is not beside the repository: this part was not run")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string][]byte{}
	for _, e := range entries {
		if e.Name() == "index.csv" {
			continue
		}
		if bodies[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if len(bodies) < 50 {
		t.Fatalf("only %d cases in %s", len(bodies), folder)
	}
	return bodies
}

func TestSharedValidCases(t *testing.T) {
	for name, body := range readShared(t, "valid") {
		m, faults, err := content.Check(body, content.Options{})
		if err != nil || len(faults) > 0 {
			t.Errorf("%s: %v, %v", name, faults, err)
			continue
		}
		kind, _, _ := strings.Cut(strings.TrimSuffix(name, ".json"), ".")
		kind, _, _ = strings.Cut(kind, "__")
		if kind != "read" && m.Type != kind || m.IsReadReceipt != (kind == "read") {
			t.Errorf("%s: type %q", name, m.Type)
		}
		if got, want := decode(t, m.Body), decode(t, body); !equal(got, want) {
			t.Errorf("%s: kept as %s", name, m.Body)
		}
	}
}

var subscript = regexp.MustCompile(`\[([0-9]+)\]`)

func TestSharedInvalidCases(t *testing.T) {
	bodies := readShared(t, "invalid")
	if bodies == nil {
		return
	}
	index, err := os.Open(filepath.Join(sharedCases, "invalid", "index.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = index.Close() }()
	lines, err := csv.NewReader(index).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines[1:] {
		name, field := line[0], line[2]
		want := "/" + strings.ReplaceAll(subscript.ReplaceAllString(field, ".$1"), ".", "/")
		if field == "$" {
			want = ""
		}
		_, faults, err := content.Check(bodies[name], content.Options{})
		if err != nil && want == "" {
			continue
		}
		if got := pointers(faults); err != nil || !slices.Equal(slices.Compact(got), []string{want}) {
			t.Errorf("%s (%s): faults %v, %v, want one at %q", name, line[1], faults, err, want)
		}
	}
}
