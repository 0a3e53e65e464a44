package callback

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"wagate/internal/store"
)

// The formats of what is posted.
const (
	// FormatWagate is JSON of our own, signed by Standard Webhooks.
	FormatWagate = "wagate"
	// FormatMeta is what Meta itself posts, signed with X-Hub-Signature-256.
	FormatMeta = "meta"
)

const (
	secretPrefix = "whsec_"
	secretSize   = 32 // bytes; Standard Webhooks asks for 24 to 64
)

// Overlap is how long a secret stays valid beside its successor, where nothing else was asked for.
const Overlap = 24 * time.Hour

// NewSecret makes a secret for a format.
func NewSecret(format string) string {
	b := make([]byte, secretSize)
	_, _ = rand.Read(b) // never fails
	if format == FormatMeta {
		return hex.EncodeToString(b)
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(b)
}

// CheckSecret says what is wrong with a secret that a caller chose.
func CheckSecret(format, secret string) error {
	if format == FormatMeta {
		if len(secret) < 16 || len(secret) > 200 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("must be 16 to 200 printable ASCII characters without spaces")
		}
		return nil
	}
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return errors.New("must be whsec_ and 24 to 64 bytes in base64")
	}
	return nil
}

// signer signs what goes to one endpoint.
type signer struct {
	format string
	hub    []byte
	keys   []*standardwebhooks.Webhook // the newest first
}

// newSigner opens sealed secrets: the one in force and, until its end, the one before.
func newSigner(format string, open func([]byte) ([]byte, error), secret, old []byte, oldUntil *time.Time, now time.Time) (*signer, error) {
	s := &signer{format: format}
	plain, err := open(secret)
	if err != nil {
		return nil, fmt.Errorf("opening a callback secret: %w", err)
	}
	if format == FormatMeta {
		s.hub = plain // the header has room for one
		return s, nil
	}
	all := []string{string(plain)}
	if oldUntil != nil && oldUntil.After(now) && len(old) > 0 {
		before, err := open(old)
		if err != nil {
			return nil, fmt.Errorf("opening a callback secret: %w", err)
		}
		all = append(all, string(before))
	}
	for _, secret := range all {
		key, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, errors.New("a callback secret is no base64") //nolint:err113 // the library's error may show it
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// sign sets the headers of an attempt.
func (s *signer) sign(h http.Header, id string, now time.Time, body []byte) error {
	if s.format == FormatMeta {
		mac := hmac.New(sha256.New, s.hub)
		mac.Write(body)
		h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		return nil
	}
	signatures := make([]string, len(s.keys))
	for i, key := range s.keys {
		signature, err := key.Sign(id, now, body)
		if err != nil {
			return fmt.Errorf("signing callback %s: %w", id, err)
		}
		signatures[i] = signature
	}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return nil
}

// target is an endpoint, its signer and its own state.
type target struct {
	store.CallbackTarget
	signer *signer
}
