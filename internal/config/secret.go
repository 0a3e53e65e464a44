package config

import (
	"fmt"
	"log/slog"
)

// hidden is what every way of printing a Secret gives.
const hidden = "[secret]"

// Secret is a setting that must never be shown. Whatever fmt, encoding/json or slog does with it, its value stays out;
// Value and Bytes are the only ways to it.
type Secret struct{ value string }

// NewSecret hides a value.
func NewSecret(value string) Secret { return Secret{value: value} }

// Value gives the value itself.
func (s Secret) Value() string { return s.value }

// Bytes gives the value itself.
func (s Secret) Bytes() []byte { return []byte(s.value) }

// IsSet says whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return hidden
}

// Format implements fmt.Formatter, so that no verb reaches the value (%#v and %x would, past String).
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
