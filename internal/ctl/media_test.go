package ctl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"wagate/internal/store"
)

func TestMedia(t *testing.T) {
	r := start(t)
	path := filepath.Join(t.TempDir(), "menu.pdf")
	if err := os.WriteFile(path, []byte("a menu"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(r.want(0, nil, "media", "upload", path))
	media, err := uuid.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	if again := r.want(0, nil, "media", "upload", "--type", "application/pdf", path); strings.TrimSpace(again) != id {
		t.Errorf("the same file is %s and %s", id, again)
	}
	if err := r.store.KeepMediaUpload(t.Context(), store.MediaAt{ID: media, PhoneNumberID: phone}, "777"); err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{id, "menu.pdf", "application/pdf", "6", phone, "777", "until "}, "media", id)
	r.want(0, []string{`"meta_id":"777"`}, "media", id, "--json")
	r.want(1, []string{"must have a type that Meta takes"}, "media", "upload", path, "--type", "image/gif")
	r.want(2, []string{"does not say its type"}, "media", "upload", filepath.Join(t.TempDir(), "file"))
	r.want(2, []string{"no such file"}, "media", "upload", filepath.Join(t.TempDir(), "a.pdf"))
	for _, args := range [][]string{{"media"}, {"media", "upload"}, {"media", id, "--type", "x/y"}, {"media", "move", id}} {
		r.want(2, nil, args...)
	}
	r.want(0, []string{"Deleted media " + id}, "media", "delete", id)
	r.want(1, []string{"404"}, "media", id)
}
