// Package seal encrypts the secrets that lie in the database: Meta's access tokens and app secrets, and what signs callbacks. AES-256-GCM, with
// the place of the secret as additional data, so that a sealed value copied into another row does not open there.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// version is the first byte of every sealed value, so that another cipher or key can be told apart later.
const version = 1

// ErrOpen is returned by Open for a value that was sealed with another key, for another place, or was changed.
var ErrOpen = errors.New("the sealed value does not open with this key")

// Sealer seals and opens with one key. It is safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// New makes a Sealer of a key of KeySize bytes.
func New(key []byte) (*Sealer, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a sealing key has %d bytes, not %d", KeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	// Random nonces: safe to 2^32 values under one key, far above the number of secrets a gateway holds.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal encrypts plain for the place that aad names (see AppSecret and AccessToken).
func (s *Sealer) Seal(plain, aad []byte) []byte {
	return s.aead.Seal([]byte{version}, nil, plain, aad)
}

// Open gives back what Seal was given, with the same aad; else ErrOpen.
func (s *Sealer) Open(sealed, aad []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != version {
		return nil, ErrOpen
	}
	plain, err := s.aead.Open(nil, nil, sealed[1:], aad)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// NewKey makes a random key, for those who run without a configured one (demo, dev, tests).
func NewKey() []byte {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails, says its documentation
	return key
}

// Derive makes a key of its own for a purpose out of a key, so that what is sealed in large numbers for it uses up none of
// the nonces of the secrets at rest.
func Derive(key []byte, purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, key, nil, "wagate/"+purpose, KeySize)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot give
	}
	return derived
}

// AppSecret is the place of an app's secret.
func AppSecret(appID string) []byte { return []byte("app/" + appID + "/app_secret") }

// AccessToken is the place of a WABA's access token.
func AccessToken(wabaID string) []byte { return []byte("waba/" + wabaID + "/access_token") }

// CallbackSecret is the place of a subscription's secret, and of the one before it.
func CallbackSecret(endpointID string) []byte { return []byte("callback/" + endpointID + "/secret") }

// CallbackVerifyToken is the place of a subscription's verify token.
func CallbackVerifyToken(endpointID string) []byte {
	return []byte("callback/" + endpointID + "/verify_token")
}

// CallbackOwner is the place of what signs the callback_urls of an owner of keys.
func CallbackOwner(owner string) []byte { return []byte("callbacks of/" + owner) }
