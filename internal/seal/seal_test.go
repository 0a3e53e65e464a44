package seal

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	s, err := New(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("EAAG-token")
	sealed := s.Seal(plain, AccessToken("1"))
	if bytes.Contains(sealed, plain) {
		t.Fatal("the sealed value contains the plain one")
	}
	if again := s.Seal(plain, AccessToken("1")); bytes.Equal(sealed, again) {
		t.Fatal("sealing twice gave the same bytes")
	}
	got, err := s.Open(sealed, AccessToken("1"))
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open = %q, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	s, err := New(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal([]byte("secret"), AppSecret("1"))
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	version2 := bytes.Clone(sealed)
	version2[0] = 2
	for name, c := range map[string]struct {
		s      *Sealer
		sealed []byte
		aad    []byte
	}{
		"another key":     {other, sealed, AppSecret("1")},
		"another app":     {s, sealed, AppSecret("2")},
		"another field":   {s, sealed, AccessToken("1")},
		"changed":         {s, changed, AppSecret("1")},
		"another version": {s, version2, AppSecret("1")},
		"cut short":       {s, sealed[:5], AppSecret("1")},
		"empty":           {s, nil, AppSecret("1")},
	} {
		if got, err := c.s.Open(c.sealed, c.aad); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: Open = %q, %v, want ErrOpen", name, got, err)
		}
	}
}

func TestNewWantsAWholeKey(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("New took a key of %d bytes", n)
		}
	}
}

func TestDerive(t *testing.T) {
	key := NewKey()
	one, again, two, other := Derive(key, "one"), Derive(key, "one"), Derive(key, "two"), Derive(NewKey(), "one")
	if len(one) != KeySize || !bytes.Equal(one, again) {
		t.Errorf("%x, %x", one, again)
	}
	for _, k := range [][]byte{two, other, key} {
		if bytes.Equal(one, k) {
			t.Errorf("two keys are the same: %x", k)
		}
	}
}
